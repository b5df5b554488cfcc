package pgwire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Codes that requests have in place of a protocol version.
const (
	codeCancel = 1234<<16 | 5678
	codeTLS    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

// maxStartup is PostgreSQL's limit for a startup message without its length.
const maxStartup = 10_000

// alpn is the name of the protocol in TLS, which is mandatory for direct
// negotiation.
const alpn = "postgresql"

// typeTLSHandshake is the first byte of TLS, which no message begins with.
const typeTLSHandshake = 0x16

// ErrRejected is the cause of errors that the client has been told.
var ErrRejected = errors.New("the client was told")

// Terms are what a server offers to a client that connects.
type Terms struct {
	// TLS is used for clients that ask for it. nil means that there is no TLS.
	TLS *tls.Config
	// Newest is the newest version of the protocol, for error messages.
	Newest Version
	// AfterTLS, if not nil, is called after a TLS handshake. If it returns an
	// error, the client gets no answer.
	AfterTLS func() error
}

// A Request is what a client that has connected asks for.
type Request struct {
	// Conn is the client's connection: the one that Accept was given, or a TLS
	// connection over it.
	Conn net.Conn
	// Encrypted reports whether Conn has TLS.
	Encrypted bool
	// Startup begins a session. It is nil if Cancel is not.
	Startup *Startup
	// Cancel cancels the query of another session.
	Cancel *CancelRequest
}

// ServerTLS returns a TLS configuration for a server of PostgreSQL's protocol.
func ServerTLS(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	config = config.Clone()
	config.NextProtos = []string{alpn}
	config.DynamicRecordSizingDisabled = true
	return config
}

// Accept answers requests for encryption until the client sends its startup
// message or a cancel request. Errors of the client's protocol are sent to it, in
// PostgreSQL's words. A limit for the time must be set on conn.
//
// Accept reads nothing ahead, so that no byte sent before TLS counts as sent
// under it.
func (t Terms) Accept(ctx context.Context, conn net.Conn) (*Request, error) {
	r := &Request{Conn: conn}
	for askedTLS, askedGSS := false, false; ; {
		var head [8]byte
		if _, err := io.ReadFull(r.Conn, head[:4]); err != nil {
			return nil, fmt.Errorf("startup: %w", err)
		}
		length := binary.BigEndian.Uint32(head[:])
		if head[0] == typeTLSHandshake && t.TLS != nil && !askedTLS && !askedGSS {
			askedTLS, askedGSS = true, true
			if err := t.encrypt(ctx, r, &unread{Conn: r.Conn, head: head[:4]}, true); err != nil {
				return nil, err
			}
			continue
		}
		if length < 8 || length > 4+maxStartup {
			return nil, errors.New("startup: not a message of PostgreSQL's protocol")
		}
		if _, err := io.ReadFull(r.Conn, head[4:]); err != nil {
			return nil, fmt.Errorf("startup: %w", err)
		}
		code := binary.BigEndian.Uint32(head[4:])
		switch {
		case code == codeTLS && !askedTLS && length == 8:
			askedTLS = true
			if t.TLS == nil {
				if _, err := r.Conn.Write([]byte{'N'}); err != nil {
					return nil, fmt.Errorf("startup: %w", err)
				}
				continue
			}
			askedGSS = true
			if _, err := r.Conn.Write([]byte{'S'}); err != nil {
				return nil, fmt.Errorf("startup: %w", err)
			}
			if err := t.encrypt(ctx, r, r.Conn, false); err != nil {
				return nil, err
			}
		case code == codeGSS && !askedGSS && length == 8:
			askedGSS = true
			if _, err := r.Conn.Write([]byte{'N'}); err != nil {
				return nil, fmt.Errorf("startup: %w", err)
			}
		default:
			body := make([]byte, length-8)
			if _, err := io.ReadFull(r.Conn, body); err != nil {
				return nil, fmt.Errorf("startup: %w", err)
			}
			return r, t.read(r, Version(code), body)
		}
	}
}

// encrypt performs the TLS handshake on conn.
func (t Terms) encrypt(ctx context.Context, r *Request, conn net.Conn, direct bool) error {
	secured := tls.Server(conn, t.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("startup: %w", err)
	}
	if direct && secured.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("startup: direct TLS without ALPN")
	}
	r.Conn, r.Encrypted = secured, true
	if t.AfterTLS != nil {
		return t.AfterTLS()
	}
	return nil
}

// read reads the message that ends the negotiation.
func (t Terms) read(r *Request, version Version, body []byte) error {
	if version == codeCancel {
		if len(body) < 4+1 || len(body) > 4+maxKey {
			return errors.New("startup: invalid length of a cancel request")
		}
		r.Cancel = &CancelRequest{PID: binary.BigEndian.Uint32(body), Key: body[4:]}
		return nil
	}
	var failure *Error
	if version.Major() != 3 {
		failure = &Error{Code: "0A000", Message: fmt.Sprintf("unsupported frontend protocol %v: server supports 3.0 to %v", version, t.Newest)}
		if version.Major() < 3 {
			return r.send(failure, failure.encodeOld())
		}
	} else {
		r.Startup, failure = parseStartup(version, body)
	}
	if failure != nil {
		return r.send(failure, failure.Encode())
	}
	return nil
}

// Reject sends an error to the client. It returns an error that is both
// ErrRejected and failure.
func (r *Request) Reject(failure *Error) error { return r.send(failure, failure.Encode()) }

func (r *Request) send(failure *Error, message []byte) error {
	_, err := r.Conn.Write(message)
	return errors.Join(fmt.Errorf("%w: %w", ErrRejected, failure), err)
}

// NegotiateVersion returns the message by which a server answers a startup
// message of a newer protocol than newest, or one with options, none of which it
// knows. It returns nil if there is nothing to negotiate.
func NegotiateVersion(s *Startup, newest Version) []byte {
	options := s.Options()
	if s.Version <= newest && len(options) == 0 {
		return nil
	}
	b := []byte{'v', 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(min(s.Version, newest)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(options)))
	for _, name := range options {
		b = append(append(b, name...), 0)
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// unread is a connection that returns again what was read to see what it is.
type unread struct {
	net.Conn
	head []byte
}

func (u *unread) Read(b []byte) (int, error) {
	if len(u.head) == 0 {
		return u.Conn.Read(b)
	}
	n := copy(b, u.head)
	u.head = u.head[n:]
	return n, nil
}
