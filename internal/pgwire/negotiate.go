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

// Request codes, which are sent instead of a protocol version.
const (
	codeCancel = 1234<<16 | 5678
	codeTLS    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

// maxStartup is PostgreSQL's limit for a startup message without its length.
const maxStartup = 10_000

// maxUnauthenticated bounds the bytes that a client sends until TLS is established, and
// those that it sends then until it has authenticated. TLS keeps them in memory, up to
// 64 kB for each message of a handshake. With the keys of post-quantum cryptography, the
// first message of clients has about 2 kB.
const maxUnauthenticated = 16 << 10

// alpn is the name of the protocol in TLS, which is mandatory for direct
// negotiation.
const alpn = "postgresql"

// typeTLSHandshake is the first byte of a TLS connection. No message begins with it.
const typeTLSHandshake = 0x16

// ErrRejected is wrapped by errors that were sent to the client.
var ErrRejected = errors.New("the client was rejected")

// Terms are the encryption and protocol that a server offers to clients.
type Terms struct {
	// TLS is used for clients that request it. If it is nil, TLS is not supported.
	TLS *tls.Config
	// Newest is the newest version of the protocol, for error messages.
	Newest Version
	// AfterTLS, if not nil, is called after a TLS handshake. If it returns an error,
	// the client gets no response.
	AfterTLS func() error
}

// A Request is the first request of a client: a session, or to cancel a query.
type Request struct {
	// Conn is the client's connection: the argument of Accept, or a TLS connection
	// over it.
	Conn net.Conn
	// Encrypted reports whether Conn has TLS.
	Encrypted bool
	// Startup begins a session. It is nil if Cancel is set.
	Startup *Startup
	// Cancel cancels the query of another session. It is nil if Startup is set.
	Cancel *CancelRequest

	network *Conn // the argument of Accept
}

// Unlimit removes the limit on the bytes that the client can send. It must be called
// before a client that has authenticated sends more.
func (r *Request) Unlimit() { r.network.limited = false }

// RequestTLS requests TLS from a server, and returns the first byte of the answer: 'S' if
// the server is ready for the handshake, and 'N' if it does not support TLS.
func RequestTLS(conn net.Conn) (answer byte, err error) {
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeTLS)
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	var b [1]byte
	_, err = io.ReadFull(conn, b[:])
	return b[0], err
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

// Accept answers requests for encryption until the client sends its startup message or a
// cancel request. It sends protocol errors to the client, in PostgreSQL's words. conn
// must have a deadline.
//
// Accept rejects a client that sends unencrypted data after its request for TLS, as
// PostgreSQL does. It limits the bytes that the client can send until [Request.Unlimit].
func (t Terms) Accept(ctx context.Context, conn *Conn) (*Request, error) {
	r := &Request{Conn: conn, network: conn}
	conn.limit(maxUnauthenticated)
	for askedTLS, askedGSS := false, false; ; {
		if !askedTLS && !askedGSS && t.TLS != nil {
			if err := conn.Fill(); err != nil {
				return nil, fmt.Errorf("startup: %w", err)
			}
			if conn.buffered()[0] == typeTLSHandshake {
				askedTLS, askedGSS = true, true
				if err := t.encrypt(ctx, r, true); err != nil {
					return nil, err
				}
			}
		}
		code, body, err := readRequest(r.Conn)
		if err != nil {
			return nil, fmt.Errorf("startup: %w", err)
		}
		answer, encryption := byte('N'), ""
		switch {
		case code == codeTLS && !askedTLS:
			askedTLS, encryption = true, "SSL"
			if t.TLS != nil {
				askedGSS, answer = true, 'S'
			}
		case code == codeGSS && !askedGSS:
			askedGSS, encryption = true, "GSSAPI encryption"
		default:
			return r, t.read(r, Version(code), body)
		}
		if _, err := r.Conn.Write([]byte{answer}); err != nil {
			return nil, fmt.Errorf("startup: %w", err)
		}
		if len(conn.buffered()) > 0 {
			return nil, r.Reject(&Error{
				Code: "08P01", Message: "received unencrypted data after " + encryption + " request",
				Detail: "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
			})
		}
		if answer == 'S' {
			if err := t.encrypt(ctx, r, false); err != nil {
				return nil, err
			}
		}
	}
}

// readRequest reads a message without a type.
func readRequest(r io.Reader) (code uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < 8 || length > 4+maxStartup {
		return 0, nil, errors.New("not a message of PostgreSQL's protocol")
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, length-8)
	_, err = io.ReadFull(r, body)
	return binary.BigEndian.Uint32(head[4:]), body, err
}

// encrypt performs the TLS handshake.
func (t Terms) encrypt(ctx context.Context, r *Request, direct bool) error {
	secured := tls.Server(r.Conn, t.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("startup: %w", err)
	}
	if direct && secured.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("startup: direct TLS without ALPN")
	}
	r.Conn, r.Encrypted = secured, true
	r.network.limit(maxUnauthenticated)
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
	if version.Major() != 3 {
		failure := &Error{
			Code:    "0A000",
			Message: fmt.Sprintf("unsupported frontend protocol %v: server supports 3.0 to %v", version, t.Newest),
		}
		if version.Major() < 3 && version != 0 {
			return r.send(failure, failure.encodeOld())
		}
		return r.Reject(failure)
	}
	startup, failure := parseStartup(version, body)
	if failure != nil {
		return r.Reject(failure)
	}
	if startup.Get("user") == "" {
		failure := &Error{Code: "28000", Message: "no PostgreSQL user name specified in startup packet"}
		return r.send(failure, append(NegotiateVersion(startup, t.Newest), failure.Encode()...))
	}
	r.Startup = startup
	return nil
}

// Reject sends an error to the client. It returns an error that is both
// ErrRejected and failure.
func (r *Request) Reject(failure *Error) error { return r.send(failure, failure.Encode()) }

func (r *Request) send(failure *Error, message []byte) error {
	_, err := r.Conn.Write(message)
	return errors.Join(fmt.Errorf("%w: %w", ErrRejected, failure), err)
}

// NegotiateVersion returns a server's answer to a startup message of a newer protocol
// version than newest, or with protocol options, of which it supports none. It returns
// nil if there is nothing to negotiate.
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
