package pgwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Message types that a Takeover distinguishes.
const (
	typeBackendKeyData     = 'K'
	typeNegotiateVersion   = 'v'
	typeNoticeResponse     = 'N'
	typeNotification       = 'A'
	typeParameterStatus    = 'S'
	authOK                 = 0
	maxMessageOfValidation = 1 << 20
)

// A Takeover logs in with pgx on behalf of a client. It sends the client's startup
// message instead of pgx's, records the server's answer, and takes the connection over.
// It passes messages to pgx one at a time, so that pgx does not read ahead.
//
// A Takeover is for one login, in which pgx may try several hosts.
type Takeover struct {
	// Startup returns the message to send to a server as user.
	Startup func(user string) *Startup

	attempt *attempt // the current one
	failure []byte   // the last ErrorResponse
}

// A Session is a connection on which a client has been logged in.
type Session struct {
	// Conn is the connection, with TLS if the login had it.
	Conn net.Conn
	// Answer contains the server's messages for the client: NegotiateProtocolVersion if
	// the server sent it, then those from AuthenticationOk to ReadyForQuery.
	Answer []byte
	// Early contains the bytes that the server has sent since.
	Early []byte
	// Cancel cancels a query of the session. Its Key is nil if the server sent none.
	Cancel CancelRequest
	// Canceler sends Cancel to the same server.
	Canceler Canceler
}

// Install makes pgx log in as the client. It must be called when the user of
// config is final.
func (t *Takeover) Install(config *pgconn.Config) {
	next, startup := config.BuildFrontend, t.Startup(config.User).Encode()
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return t.begin(startup, r, w, next)
	}
}

// Attach is like Install, for a configuration whose logins use an Exchange. It only
// marks the connection. The hook that the Exchange calls must be wrapped by Attached,
// which then gives the Takeover the redacted messages of the Exchange.
func (t *Takeover) Attach(config *pgconn.Config) {
	next, startup := config.BuildFrontend, t.Startup(config.User).Encode()
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return next(&mark{r, t, startup}, w)
	}
}

// Attached returns a hook for configurations to which a Takeover may be attached.
func Attached(next pgconn.BuildFrontendFunc) pgconn.BuildFrontendFunc {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		if x, ok := r.(*Exchange); ok {
			if m, ok := x.Reader.(*mark); ok {
				return m.takeover.begin(m.startup, r, w, next)
			}
		}
		return next(r, w)
	}
}

// A mark is a reader that tells an Exchange's hook the Takeover of a connection.
type mark struct {
	io.Reader
	takeover *Takeover
	startup  []byte
}

// begin begins an attempt.
func (t *Takeover) begin(startup []byte, r io.Reader, w io.Writer, next pgconn.BuildFrontendFunc) *pgproto3.Frontend {
	t.attempt = &attempt{takeover: t, r: r, w: w, startup: startup}
	return next(t.attempt, t.attempt)
}

// ErrorResponse returns the last error that a server sent, as it was sent, or
// nil.
func (t *Takeover) ErrorResponse() []byte { return t.failure }

// Begun reports whether the startup message was sent to the last server.
func (t *Takeover) Begun() bool { return t.attempt != nil && t.attempt.startup == nil }

// Session takes over the connection of a login that has succeeded. dial is for
// cancel requests.
func (t *Takeover) Session(conn *pgconn.PgConn, dial pgconn.DialFunc) (*Session, error) {
	a := t.attempt
	if a == nil || !a.ready {
		return nil, errors.New("pgwire: pgx has not logged in through the Takeover")
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	s := &Session{
		Conn:   hijacked.Conn,
		Answer: a.answer(),
		Cancel: CancelRequest{PID: hijacked.PID, Key: hijacked.SecretKey},
		Canceler: Canceler{
			Dial: dial, TLS: hijacked.TLSConfig, Direct: hijacked.Config.SSLNegotiation == "direct",
			Network: hijacked.Conn.RemoteAddr().Network(), Address: hijacked.Conn.RemoteAddr().String(),
		},
	}
	if s.Canceler.Network == "unix" { // the address that the server reports is relative
		s.Canceler.Network, s.Canceler.Address = pgconn.NetworkAddress(hijacked.Config.Host, hijacked.Config.Port)
	}
	if s.Early, err = a.drain(s.Conn); err != nil {
		s.Conn.Close()
		return nil, err
	}
	return s, nil
}

// An attempt is the connection to one host. It is the reader and the writer of
// pgx's frontend.
type attempt struct {
	takeover *Takeover
	r        io.Reader
	w        io.Writer
	startup  []byte // nil once it is sent

	message []byte // the current one
	unread  []byte // the part of message that pgx has not read

	ready                                    bool   // for queries
	negotiation, ok, settings, status, later []byte // parts of the answer, in its order
}

// Write replaces pgx's startup message.
func (a *attempt) Write(b []byte) (int, error) {
	if a.startup == nil {
		return a.w.Write(b)
	}
	if _, err := a.w.Write(a.startup); err != nil {
		return 0, err
	}
	a.startup = nil
	return len(b), nil
}

// Read returns at most one message at a time.
func (a *attempt) Read(b []byte) (int, error) {
	if len(a.unread) == 0 {
		if err := a.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, a.unread)
	a.unread = a.unread[n:]
	return n, nil
}

// next reads one message. Before the server is ready, an Exchange limits the length of
// messages, or the server is trusted.
func (a *attempt) next() error {
	var head [5]byte
	if _, err := io.ReadFull(a.r, head[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxMessageOfValidation {
		return fmt.Errorf("the server sent a message of %d bytes during the login", length)
	}
	a.message = append(a.message[:0], head[:]...)
	a.message = append(a.message, make([]byte, length-4)...)
	if _, err := io.ReadFull(a.r, a.message[5:]); err != nil {
		return err
	}
	a.unread = a.message
	a.keep(head[0], a.message[5:])
	if len(a.later) > maxMessageOfValidation {
		return errors.New("the server sent too many asynchronous messages during the login")
	}
	return nil
}

// keep keeps a message for the client. After ReadyForQuery, it drops the answers to
// pgx's own queries.
func (a *attempt) keep(kind byte, body []byte) {
	var part *[]byte
	switch kind {
	case typeErrorResponse:
		if !a.ready {
			a.takeover.failure = append([]byte(nil), a.message...)
		}
		return
	case typeNegotiateVersion:
		part = &a.negotiation
	case typeAuthentication:
		if authCode(body) != authOK || len(body) < 4 {
			return
		}
		part = &a.ok
	case typeReadyForQuery:
		if a.ready {
			return
		}
		a.ready = true
		part = &a.status
	case typeNoticeResponse, typeParameterStatus, typeNotification, typeBackendKeyData:
		part = &a.settings
		if a.ready {
			part = &a.later
		}
	default:
		return
	}
	*part = append(*part, a.message...)
}

// answer returns the messages for the client.
func (a *attempt) answer() []byte {
	return slices.Concat(a.negotiation, a.ok, a.settings, a.status, a.later)
}

// drain returns the bytes that were read from conn and not used yet. pgx reads in the
// background while a write blocks. A deadline in the past ends that read, and the other
// bytes remain in conn.
func (a *attempt) drain(conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return nil, err
	}
	early := append([]byte(nil), a.unread...)
	buffer := make([]byte, 512)
	for {
		n, err := a.r.Read(buffer)
		early = append(early, buffer[:n]...)
		if isTimeout(err) {
			return early, conn.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return nil, err
		}
	}
}
