package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Limits of what a server may send before it accepts a login. Real servers send about
// one kilobyte. pgx itself has no limits: it would read indefinitely, allocate a
// gigabyte for a message of that length, and answer every authentication request.
const (
	maxLoginBytes   = 1 << 18
	maxAuthRequests = 8
)

// Message types, and the authentication request that carries SASL data.
const (
	typeAuthentication = 'R'
	typeErrorResponse  = 'E'
	typeReadyForQuery  = 'Z'

	authSASLContinue = 11
)

// The messages that pgx sends if its password or OAuth token is empty.
var (
	emptyPassword = encode(&pgproto3.PasswordMessage{})
	emptyBearer   = encode(bearer(""))
)

// An Exchange is the authentication exchange of one connection, between pgx and the
// network. As the reader, it limits what the server sends and removes the token from it.
// As the writer, it replaces an empty password with the token. pgx never sees the token.
// After the server has accepted the login, bytes pass unchanged, once Hold permits.
//
// An Exchange is not safe for concurrent use, and need not be: pgx logs in on
// one goroutine.
type Exchange struct {
	// Reader and Writer are the network connection's.
	Reader io.Reader
	Writer io.Writer
	// Token returns the token. If it is nil, there is none to send or remove.
	// It is a function so that no dump of a connection shows the token.
	Token func() string
	// Observer is called once, when the outcome is known. It may be nil.
	Observer Observer
	// Hold, if not nil, reports whether limits and redaction apply after the server has
	// accepted the login, to pgx's own queries. Once it returns false, it is not called
	// again.
	Hold func() bool
	// Err, if not nil, fails all reads and writes.
	Err error

	// Outcome is how the exchange ended. The Observer may read it, then and later.
	Outcome Outcome
	// Sent reports that the token was sent. The Observer may read it, then and later.
	Sent bool

	received     int // bytes
	authRequests int
	message      []byte // the current message, redacted
	unread       []byte // the part of message that has not been read
	buffer       [256]byte
}

// Read returns at most one message at a time. It never reads past the end of a
// message.
func (x *Exchange) Read(b []byte) (int, error) {
	if x.Err != nil {
		return 0, x.Err
	}
	if len(x.unread) == 0 {
		if x.Outcome == Accepted && !x.held() {
			return x.Reader.Read(b)
		}
		if started, err := x.next(); err != nil {
			if started { // the rest of the message would be read as a new one
				x.Err = err
			}
			if started || !isTimeout(err) {
				x.end(Broken)
			}
			return 0, err
		}
	}
	n := copy(b, x.unread)
	x.unread = x.unread[n:]
	return n, nil
}

// held reports whether pgx's own queries follow the login.
func (x *Exchange) held() bool {
	if x.Hold == nil || !x.Hold() {
		x.Hold, x.Token = nil, nil
		return false
	}
	return true
}

// next reads one message. If it fails, started reports that it has read a part of the
// message.
func (x *Exchange) next() (started bool, err error) {
	const head = 5 // type and length
	x.message = x.buffer[:head]
	if n, err := io.ReadFull(x.Reader, x.message); err != nil {
		return n > 0, err
	}
	kind, length := x.message[0], int64(binary.BigEndian.Uint32(x.message[1:]))
	if x.received += int(min(1+length, maxLoginBytes+1)); x.received > maxLoginBytes {
		return true, fmt.Errorf("the server sent more than %d bytes before the login was complete", maxLoginBytes)
	}
	if kind == typeAuthentication {
		if x.authRequests++; x.authRequests > maxAuthRequests {
			return true, fmt.Errorf("the server requested authentication more than %d times", maxAuthRequests)
		}
	}
	x.message = append(x.message, make([]byte, max(0, length-4))...)
	if _, err := io.ReadFull(x.Reader, x.message[head:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return true, err
	}
	x.redact(kind, x.message[head:])
	x.unread = x.message
	x.decide(kind, x.message[head:])
	return true, nil
}

// redact removes the token from a message's body.
func (x *Exchange) redact(kind byte, body []byte) {
	if x.Token == nil {
		return
	}
	var clean []byte
	if kind == typeAuthentication && x.Sent && authCode(body) == authSASLContinue {
		clean = append(body[:4:4], redactStatus(body[4:], x.Token())...)
	} else if clean = Redact(body, x.Token()); bytes.Equal(clean, body) {
		return
	}
	head := x.message[:len(x.message)-len(body)]
	binary.BigEndian.PutUint32(head[1:], uint32(4+len(clean)))
	x.message = append(head[:len(head):len(head)], clean...)
	clear(body)
}

// decide ends the exchange if a message determines its outcome.
func (x *Exchange) decide(kind byte, body []byte) {
	switch {
	case kind == typeReadyForQuery && len(body) == 1:
		x.end(Accepted)
	case kind == typeErrorResponse && strings.HasPrefix(field(body, 'C'), "28"):
		x.end(Rejected)
	case kind == typeErrorResponse:
		x.end(Failed)
	case kind == typeAuthentication && x.Sent && authCode(body) == authSASLContinue:
		x.end(Rejected)
	}
}

func (x *Exchange) end(o Outcome) {
	if x.Outcome != Pending {
		return
	}
	x.Outcome, x.received = o, 0
	if o != Accepted || !x.held() {
		x.Token = nil
	}
	if x.Observer != nil {
		x.Observer.ExchangeEnded(x)
	}
}

// Write replaces pgx's empty password or bearer token with the token. pgx sends it only if
// the server requested it by an allowed method.
func (x *Exchange) Write(b []byte) (int, error) {
	switch {
	case x.Err != nil:
		return 0, x.Err
	case x.Token == nil:
		return x.Writer.Write(b)
	}
	var message []byte
	switch token := x.Token(); {
	case bytes.Equal(b, emptyPassword):
		message = make([]byte, 0, len(b)+len(token))
		message = binary.BigEndian.AppendUint32(append(message, b[0]), uint32(len(b)-1+len(token)))
		message = append(append(message, token...), 0)
	case bytes.Equal(b, emptyBearer):
		message = encode(bearer(token))
	default:
		return x.Writer.Write(b)
	}
	if x.Sent {
		return 0, errors.New("the server requested the token more than once")
	}
	x.Sent = true
	n, err := x.Writer.Write(message)
	clear(message)
	if err != nil {
		if !isTimeout(err) {
			x.end(Broken)
		}
		// Never report all of b as written together with an error.
		return min(n, len(b)-1), err
	}
	return len(b), nil
}

// bearer returns the initial response of OAUTHBEARER (RFC 7628) as pgx writes it.
func bearer(token string) *pgproto3.SASLInitialResponse {
	return &pgproto3.SASLInitialResponse{
		AuthMechanism: "OAUTHBEARER",
		Data:          []byte("n,,\x01auth=Bearer " + token + "\x01\x01"),
	}
}

func encode(m pgproto3.FrontendMessage) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		panic(err) // longer than a gigabyte
	}
	return b
}

func authCode(body []byte) uint32 {
	if len(body) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(body)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}
