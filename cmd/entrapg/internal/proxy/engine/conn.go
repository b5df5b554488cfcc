package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/logwriter"
	"github.com/entrapg/entrapg/internal/pgwire"
)

// A conn is a client's connection.
type conn struct {
	server   *Server
	network  net.Conn
	begun    time.Time
	logAttrs []any // of its records

	index    int         // in pendingClients, or notPending
	dropped  atomic.Bool // from pendingClients
	admitted bool        // has a slot of the Limit

	key   *key
	relay atomic.Pointer[pgwire.Relay] // nil before the session begins
}

// serve serves a client from its first byte. The session runs in a new goroutine,
// because the handshakes have made the stack of this one large.
func (c *conn) serve() {
	if relay := c.open(); relay != nil {
		c.server.running.Go(func() { c.run(relay) })
		return
	}
	c.network.Close()
	c.server.done(c)
}

// open handles a client's startup and login. It returns nil if there is no session.
func (c *conn) open() *pgwire.Relay {
	s := c.server
	c.logAttrs = []any{"client", clientOf(c.network)}
	request, err := s.terms.Accept(s.ctx, pgwire.NewConn(c.network))
	switch {
	case errors.Is(err, io.EOF):
		return nil // a health check, or a client that wanted encryption
	case err != nil:
		c.failed(c.unanswered(RejectedStartup, err))
		return nil
	case request.Cancel != nil:
		if k := s.keys.lookUp(*request.Cancel); k != nil {
			s.pending.remove(c)
			s.forward(k)
		}
		request.Conn.Close() // ends TLS, which libpq waits for
		return nil
	}
	startup := request.Startup
	for _, name := range []string{"user", "database", "application_name"} {
		if value := startup.Get(name); value != "" {
			c.logAttrs = append(c.logAttrs, name, logwriter.Clip(value))
		}
	}
	if f := c.admit(request); f != nil {
		c.reject(request, f)
		return nil
	}
	s.pending.remove(c)
	c.network.SetDeadline(time.Time{})
	session, early, f := c.logIn(request)
	if f != nil {
		c.network.SetDeadline(time.Now().Add(linger))
		c.reject(request, f)
		return nil
	}
	c.key = s.keys.add(session)
	c.key.show(session.Answer)
	s.logins.observe(time.Since(c.begun))
	s.sessions.Add(1)
	session.Answer = append(session.Answer, session.Early...)
	return &pgwire.Relay{Client: request.Conn, Server: session.Conn, FromClient: early, FromServer: session.Answer}
}

// admit authenticates a client and acquires a slot of the Limit. It returns a failure
// if the client may not log in.
func (c *conn) admit(request *pgwire.Request) *failure {
	s := c.server
	switch {
	case s.isClosing():
		return fatal(RejectedShutdown, errShuttingDown)
	case s.TLS != nil && !request.Encrypted && c.network.RemoteAddr().Network() != "unix":
		return fatal(RejectedStartup, errNoTLS)
	}
	if f := c.authenticate(request); f != nil {
		return f
	}
	request.Unlimit()
	if c.admitted = s.Limit.acquire(); !c.admitted {
		return fatal(RejectedLimit, errTooMany)
	}
	return nil
}

// authenticate requests the password, if there is one.
func (c *conn) authenticate(request *pgwire.Request) *failure {
	verifier := c.server.verifier.Load()
	if verifier == nil {
		return nil
	}
	err := verifier.Authenticate(request.Conn)
	var invalid *pgwire.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgwire.ErrWrongPassword):
		return fatal(RejectedPassword, wrongPassword(request.Startup.Get("user")))
	case errors.As(err, &invalid):
		return fatal(RejectedPassword, invalid)
	default: // psql disconnects to ask for a password
		return c.unanswered(RejectedPassword, fmt.Errorf("the client did not send the proxy's password: %w", err))
	}
}

// unanswered returns the failure of a client that did not send its next message.
func (c *conn) unanswered(kind Rejection, err error) *failure {
	switch {
	case !c.dropped.Load():
		return &failure{kind: kind, err: err}
	case c.server.isClosing():
		return fatal(RejectedShutdown, errShuttingDown)
	default:
		return fatal(RejectedDropped, errDropped)
	}
}

// logIn logs the client in upstream. It also returns what the client has sent in
// the meantime.
func (c *conn) logIn(request *pgwire.Request) (*pgwire.Session, []byte, *failure) {
	ctx, cancel := context.WithCancel(c.server.ctx)
	defer cancel()
	watch := pgwire.NewWatch(request.Conn, cancel)
	l := &clientLogin{startup: request.Startup, clientUser: c.server.ClientUser}
	session, err := c.server.Upstream.logIn(ctx, l)
	early, gone := watch.Stop()
	switch {
	case gone != nil:
		if err == nil {
			session.Conn.Close()
		}
		return nil, nil, &failure{
			kind: RejectedStartup,
			err:  fmt.Errorf("the client disconnected during its login: %w", gone),
		}
	case err != nil && c.server.ctx.Err() != nil:
		return nil, nil, fatal(RejectedShutdown, errShuttingDown)
	case err != nil:
		return nil, nil, explain(err, l)
	}
	c.logAttrs = append(c.logAttrs, "role", l.user)
	return session, early, nil
}

// linger is the time that a rejected client has to read the error and disconnect,
// if it has authenticated. Other clients have the rest of the startup timeout.
const linger = 2 * time.Second

// reject sends the client an error. It does not change deadlines, because that could
// undo drop.
func (c *conn) reject(request *pgwire.Request, f *failure) {
	c.failed(f)
	if f.response == nil {
		return
	}
	if _, err := request.Conn.Write(f.response); err != nil {
		return
	}
	// Closing at once could discard the response on its way to the client.
	if half, ok := request.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, request.Conn)
	}
}

// failed counts and logs a failure.
func (c *conn) failed(f *failure) {
	s := c.server
	s.rejected.add(f.kind)
	attrs := append(c.logAttrs, "reason", string(f.kind), "error", f.err)
	if own := new(pgwire.Error); errors.As(f.err, &own) && own.Hint != "" {
		attrs = append(attrs, "hint", own.Hint)
	}
	record := func() { s.log.Warn("proxy: connection rejected", attrs...) }
	if c.admitted {
		record()
		return
	}
	s.quiet.rejected(f.kind, record)
}

// run relays the session.
func (c *conn) run(relay *pgwire.Relay) {
	s := c.server
	c.relay.Store(relay)
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended { // while the session began
		c.end()
	}
	relay.Run()
	s.keys.remove(c.key)
	received, sent := relay.Bytes()
	s.log.Info("proxy: session ended", append(c.logAttrs,
		"duration", time.Since(c.begun).Round(time.Millisecond), "received", received, "sent", sent)...)
	s.done(c)
}

// end ends the connection because the server is closed.
func (c *conn) end() {
	if relay := c.relay.Load(); relay != nil {
		relay.Stop(errEnded)
		return
	}
	c.network.SetReadDeadline(time.Unix(1, 0))
}

// drop disconnects a client that has not authenticated. One second remains to send
// it an error.
func (c *conn) drop() {
	c.dropped.Store(true)
	c.network.SetWriteDeadline(time.Now().Add(time.Second))
	c.network.SetReadDeadline(time.Unix(1, 0))
}

func (c *conn) bytes() (received, sent int64) {
	if relay := c.relay.Load(); relay != nil {
		return relay.Bytes()
	}
	return 0, 0
}

// clientOf returns a client's address, or "unix".
func clientOf(network net.Conn) slog.Value {
	if addr := network.RemoteAddr(); addr.Network() != "unix" {
		return slog.StringValue(addr.String())
	}
	return slog.StringValue("unix")
}
