package entrapgtest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// A client is a connection that has sent its startup message.
type client struct {
	net.Conn // with TLS, if the client requested it
	startup  *pgwire.Startup
	greeting []byte // sent before the first message
	login    Login
	log      *loginLog
}

var errEnded = errors.New("the session has ended")

func newClient(r *pgwire.Request, newest pgwire.Version, log *loginLog) *client {
	// pgx sends every setting that it does not know to the server: here, one of Server.DSN.
	unknown := func(p pgwire.Parameter) bool { return p == pgwire.Parameter{Name: "hostaddr"} }
	c := &client{
		Conn: r.Conn, log: log, startup: r.Startup.Without(unknown), greeting: pgwire.NegotiateVersion(r.Startup, newest),
		login: Login{
			Time: time.Now(), User: r.Startup.Get("user"), Database: r.Startup.Get("database"),
			Application: r.Startup.Get("application_name"), TLS: r.Encrypted,
		},
	}
	if c.login.Database == "" {
		c.login.Database = c.login.User
	}
	return c
}

// request sends a message and returns the type and body of the client's answer.
func (c *client) request(message pgproto3.BackendMessage) (kind byte, body []byte, err error) {
	out, err := message.Encode(c.greeting)
	if err != nil {
		return 0, nil, err
	}
	c.greeting = nil
	if _, err := c.Write(out); err != nil {
		return 0, nil, err
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 5 || length > maxPassword {
		return 0, nil, errEnded
	}
	body = make([]byte, length-4)
	_, err = io.ReadFull(c, body)
	return head[0], body, err
}

// reject records a rejection and sends it.
func (c *client) reject(r *rejection) error {
	c.login.Code, c.login.Message, c.login.Reason = r.code, r.message, r.reason
	c.log.add(c.login)
	response := r.response
	if response == nil {
		response = (&pgwire.Error{Code: r.code, Message: r.message, Hint: r.hint}).Encode()
	}
	_, err := c.Write(append(c.greeting, response...))
	return errors.Join(errEnded, err)
}

// cut records that the connection is closed without an answer.
func (c *client) cut() error {
	c.login.Reason = "Faults.CutLogin is set"
	c.log.add(c.login)
	return errEnded
}
