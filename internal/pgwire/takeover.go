package pgwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Message types that a Takeover tells apart.
const (
	typeBackendKeyData     = 'K'
	typeNegotiateVersion   = 'v'
	typeNoticeResponse     = 'N'
	typeNotification       = 'A'
	typeParameterStatus    = 'S'
	authOK                 = 0
	maxMessageOfValidation = 1 << 20
)

// A Takeover logs in with pgx for a client of its own: it sends the client's
// startup message in place of pgx's, keeps what the server answers as it was sent,
// and takes the connection over. Messages reach pgx one at a time, so that pgx
// has read nothing ahead.
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
	// Answer is what the server sent, from AuthenticationOk to ReadyForQuery.
	// NegotiateProtocolVersion stands before it.
	Answer []byte
	// Early is what the server has sent since.
	Early []byte
	// Cancel is the request that cancels a query of the session. Its Key is nil if
	// the server sent none.
	Cancel CancelRequest
	// Canceler sends it to the same server.
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

// Attach is Install for a configuration whose logins go through an Exchange. It
// only marks the connection: Attached, which must have wrapped the hook that the
// Exchange calls, then lets the Takeover see what the Exchange has redacted.
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

// A mark tells an Exchange's hook which Takeover a connection belongs to.
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

// Begun reports whether the last server was sent the startup message.
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
	if s.Canceler.Network == "unix" { // the server's own name for it is relative
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
	negotiation, ok, settings, status, later []byte // by their place in the answer
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

// next reads one message. The length of those before the server is ready is
// bounded by an Exchange, or the server is trusted.
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
		return errors.New("the server sent too many messages that answer no query during the login")
	}
	return nil
}

// keep keeps a message that is for the client. After ReadyForQuery, those that
// answer pgx's own queries are not.
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

// answer returns what the client gets.
func (a *attempt) answer() []byte {
	return []byte(strings.Join([]string{string(a.negotiation), string(a.ok), string(a.settings), string(a.status), string(a.later)}, ""))
}

// drain returns what has been read from conn and not yet been used. pgx reads in
// the background while a write blocks. A deadline that has passed ends that, and
// leaves the bytes that it has not read in conn.
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
