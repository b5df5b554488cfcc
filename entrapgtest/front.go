package entrapgtest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// Limits for clients that have not logged in, as in PostgreSQL
// (authentication_timeout, PG_MAX_AUTH_TOKEN_LENGTH).
const (
	loginTimeout = time.Minute
	maxPassword  = 65_535
)

// A front is the server that clients connect to. The path of one login is serve, session,
// logIn, openSession.
type front struct {
	listener       net.Listener
	tls            *tls.Config
	method         loginMethod
	judge          judge
	administration *administration
	backend        *backend
	faults         currentFaults
	log            loginLog

	ctx         context.Context // of all sessions; it must end before close
	sessions    sync.WaitGroup  // serve is one of them, so that close waits for all
	connections connections
}

// serve accepts clients until close.
func (f *front) serve() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if sleep(f.ctx, 10*time.Millisecond) != nil { // otherwise it is temporary: too many open files, for example
				return
			}
			continue
		}
		f.sessions.Go(func() { f.session(conn) })
	}
}

// close ends all sessions.
func (f *front) close() {
	f.listener.Close()
	f.connections.closeAll()
	f.sessions.Wait()
}

// session serves one client until it disconnects.
func (f *front) session(network net.Conn) {
	if !f.connections.add(network) {
		return
	}
	defer f.connections.close(network)
	faults := f.faults.get()
	if faults.CutLogin == AtConnect {
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, loginTimeout)
	defer cancel()
	network.SetDeadline(time.Now().Add(loginTimeout))

	request, err := f.terms(faults).Accept(ctx, pgwire.NewConn(network))
	switch {
	case err != nil:
		return // Accept has informed the client
	case request.Cancel != nil:
		f.backend.cancel(ctx, *request.Cancel)
		request.Conn.Close() // ends TLS, which libpq waits for
		return
	}
	request.Unlimit() // the following messages have limits of their own
	c := newClient(request, f.backend.protocol, &f.log)
	relay, err := f.logIn(ctx, c, faults)
	if err != nil {
		return
	}
	network.SetDeadline(time.Time{})
	relay.Client = c.Conn
	if f.connections.add(relay) {
		defer f.connections.close(relay)
		relay.Run()
	}
}

// terms returns the TLS and protocol versions that the server offers to clients.
func (f *front) terms(faults Faults) pgwire.Terms {
	t := pgwire.Terms{TLS: f.tls, Newest: f.backend.protocol}
	if faults.NoTLS {
		t.TLS = nil
	}
	if faults.CutLogin == AfterTLS {
		t.AfterTLS = func() error { return errEnded }
	}
	return t
}

// logIn logs a client in, and returns the relay to its session on the real server.
func (f *front) logIn(ctx context.Context, c *client, faults Faults) (*pgwire.Relay, error) {
	if faults.CutLogin == AfterStartup {
		return nil, c.cut()
	}
	if !c.login.TLS {
		return nil, c.reject(noEncryption(c))
	}
	m, mapped, err := f.administration.mappingOf(ctx, c.login.User)
	if err != nil {
		return nil, c.reject(unreachable(err))
	}
	if !mapped {
		return f.handOver(ctx, c)
	}

	token, err := f.method.request(c)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, faults.LoginDelay); err != nil {
		return nil, err
	}
	if faults.CutLogin == AfterPassword {
		return nil, c.cut()
	}
	if r := faults.Reject; r != nil {
		return nil, c.reject(&rejection{code: r.Code, message: r.Message, hint: r.Hint, reason: "Faults.Reject is set"})
	}
	if r := f.judge.check(c.login.User, m, token); r != nil {
		f.method.reject(c)
		return nil, c.reject(r)
	}
	return f.openSession(ctx, c, m)
}

// openSession logs in to the real server with the client's role.
func (f *front) openSession(ctx context.Context, c *client, m mapping) (*pgwire.Relay, error) {
	startup := c.startup.Without(pgwire.IsOption)
	startup.Version = min(startup.Version, f.backend.protocol)
	startup.Set("database", c.login.Database)
	if err := f.administration.prepareSession(ctx, startup, m); err != nil {
		return nil, c.reject(unreachable(err))
	}
	session, rejected := f.backend.openSession(ctx, c.login.User, startup)
	if rejected != nil {
		return nil, c.reject(rejected)
	}
	c.login.Accepted = true
	f.log.add(c.login)
	relay := &pgwire.Relay{Server: session.Conn, FromServer: append(session.Answer, session.Early...)}
	if m.admin {
		relay.ToServer = &adminConn{Conn: session.Conn, writePrincipals: func() {
			_ = f.administration.prepareDatabase(f.ctx, c.login.Database)
		}}
	}
	return relay, nil
}

// handOver connects a client whose role is not mapped to the real server, which
// authenticates the client itself. The connection to the real server does not use TLS:
// SCRAM would bind the channel to a certificate that the client has not seen.
func (f *front) handOver(ctx context.Context, c *client) (*pgwire.Relay, error) {
	server, err := f.backend.connect(ctx)
	if err != nil {
		return nil, c.reject(unreachable(err))
	}
	c.login.Reason = "the role is not mapped to Entra: PostgreSQL authenticates it"
	f.log.add(c.login)
	if _, err := server.Write(c.startup.Encode()); err != nil {
		server.Close()
		return nil, err
	}
	return &pgwire.Relay{Server: server}, nil
}
