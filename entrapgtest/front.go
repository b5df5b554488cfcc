package entrapgtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// Limits for clients that have not logged in, as in PostgreSQL
// (authentication_timeout, PG_MAX_AUTH_TOKEN_LENGTH).
const (
	loginTimeout = time.Minute
	maxPassword  = 65_535
)

func (s *Server) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if sleep(s.ctx, 10*time.Millisecond) != nil { // otherwise it is temporary: too many open files, for example
				return
			}
			continue
		}
		s.sessions.Go(func() {
			if s.track(conn) {
				defer s.untrack(conn)
				s.session(conn)
			}
		})
	}
}

// track records a connection or a relay for Close to close. After Close has begun, track
// closes it itself and returns false.
func (s *Server) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) untrack(c io.Closer) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// session serves one client until it disconnects.
func (s *Server) session(network net.Conn) {
	faults := s.faults.get()
	if faults.CutLogin == AtConnect {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, loginTimeout)
	defer cancel()
	network.SetDeadline(time.Now().Add(loginTimeout))

	request, err := s.terms(faults).Accept(ctx, pgwire.NewConn(network))
	switch {
	case err != nil:
		return // Accept has informed the client
	case request.Cancel != nil:
		s.cancelQuery(ctx, *request.Cancel)
		request.Conn.Close() // ends TLS, which libpq waits for
		return
	}
	c := s.newClient(request)
	relay, err := s.logIn(ctx, c, faults)
	if err != nil {
		return
	}
	network.SetDeadline(time.Time{})
	relay.Client = c.Conn
	if s.track(relay) {
		defer s.untrack(relay)
		relay.Run()
	}
}

// terms returns the TLS and protocol versions that the server offers to clients.
func (s *Server) terms(faults Faults) pgwire.Terms {
	t := pgwire.Terms{TLS: s.certificate.tls, Newest: s.protocol}
	if faults.NoTLS {
		t.TLS = nil
	}
	if faults.CutLogin == AfterTLS {
		t.AfterTLS = func() error { return errEnded }
	}
	return t
}

// A client is a connection that has sent its startup message.
type client struct {
	net.Conn // with TLS, if the client requested it
	startup  *pgwire.Startup
	greeting []byte // sent before the first message
	login    Login
}

var errEnded = errors.New("the session has ended")

func (s *Server) newClient(r *pgwire.Request) *client {
	c := &client{
		Conn: r.Conn, startup: r.Startup, greeting: pgwire.NegotiateVersion(r.Startup, s.protocol),
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

// logIn logs a client in, and returns the relay to its session on the real server.
func (s *Server) logIn(ctx context.Context, c *client, faults Faults) (*pgwire.Relay, error) {
	if faults.CutLogin == AfterStartup {
		return nil, s.cut(c)
	}
	if !c.login.TLS {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		return nil, s.reject(c, &rejection{
			code: invalidAuthorization, reason: "no TLS",
			message: fmt.Sprintf("no pg_hba.conf entry for host %q, user %q, database %q, no encryption",
				host, c.login.User, c.login.Database),
		})
	}
	m, mapped, err := s.mappingOf(ctx, c.login.User)
	if err != nil {
		return nil, s.reject(c, unreachable(err))
	}
	if !mapped {
		return s.handOver(ctx, c)
	}

	requestToken := c.requestPassword
	if s.config.OAuth {
		requestToken = c.requestBearer
	}
	password, err := requestToken()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, faults.LoginDelay); err != nil {
		return nil, err
	}
	if faults.CutLogin == AfterPassword {
		return nil, s.cut(c)
	}
	if r := faults.Reject; r != nil {
		return nil, s.reject(c, &rejection{code: r.Code, message: r.Message, hint: r.Hint, reason: "Faults.Reject is set"})
	}
	if r := s.judge(c.login.User, m, password); r != nil {
		if s.config.OAuth {
			s.rejectBearer(c)
		}
		return nil, s.reject(c, r)
	}
	return s.openSession(ctx, c, m)
}

// requestPassword requests a cleartext password, as Azure does for a mapped role.
func (c *client) requestPassword() (string, error) {
	kind, body, err := c.request(&pgproto3.AuthenticationCleartextPassword{})
	if err != nil {
		return "", err
	}
	password, ended := bytes.CutSuffix(body, []byte{0})
	if kind != 'p' || !ended {
		return "", errEnded
	}
	return string(password), nil
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

// openSession logs in to the real server with the client's role.
func (s *Server) openSession(ctx context.Context, c *client, m mapping) (*pgwire.Relay, error) {
	startup := c.startup.Without(pgwire.IsOption)
	startup.Version = min(startup.Version, s.protocol)
	startup.Set("database", c.login.Database)
	if s.config.GroupSync {
		startup.Set(groupSyncSetting, "on")
	}
	if m.admin {
		startup.Set(tenantSetting, s.Tenant.ID)
		if err := s.prepareAdmin(ctx, c.login.Database); err != nil {
			return nil, s.reject(c, unreachable(err))
		}
	}
	config := s.upstream.Config.Copy()
	config.User, config.DialFunc = c.login.User, s.dial
	takeover := &pgwire.Takeover{Startup: func(string) *pgwire.Startup { return startup }}
	takeover.Install(config)
	conn, err := s.connectAs(ctx, config)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return nil, s.reject(c, &rejection{
			code: pgErr.Code, message: pgErr.Message, reason: "the token is valid, but PostgreSQL rejects the login",
			response: takeover.ErrorResponse(),
		})
	case err != nil:
		return nil, s.reject(c, unreachable(err))
	}
	session, err := takeover.Session(conn, s.upstream.DialFunc)
	if err != nil {
		return nil, err
	}
	c.login.Accepted = true
	s.record(c.login)
	relay := &pgwire.Relay{Server: session.Conn, FromServer: append(session.Answer, session.Early...)}
	if m.admin {
		relay.ToServer = newAdminConn(s.ctx, s, session.Conn, c.login.Database)
	}
	return relay, nil
}

// handOver connects a client whose role is not mapped to the real server, which
// authenticates the client itself. The connection to the real server does not use TLS:
// SCRAM would bind the channel to a certificate that the client has not seen.
func (s *Server) handOver(ctx context.Context, c *client) (*pgwire.Relay, error) {
	network, address := pgconn.NetworkAddress(s.upstream.Host, s.upstream.Port)
	upstream, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, s.reject(c, unreachable(err))
	}
	c.login.Reason = "the role is not mapped to Entra: PostgreSQL authenticates it"
	s.record(c.login)
	if _, err := upstream.Write(c.startup.Encode()); err != nil {
		upstream.Close()
		return nil, err
	}
	return &pgwire.Relay{Server: upstream}, nil
}

// cancelQuery forwards a cancel request; clients have the real server's keys.
func (s *Server) cancelQuery(ctx context.Context, request pgwire.CancelRequest) {
	canceler := pgwire.Canceler{Dial: s.upstream.DialFunc}
	canceler.Network, canceler.Address = pgconn.NetworkAddress(s.upstream.Host, s.upstream.Port)
	_ = canceler.Cancel(ctx, request) // clients get no response to a cancel request
}

// dial connects to the real server.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.upstream.DialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return pgwire.NewConn(conn), nil
}

// unreachable is the rejection of a login if the real server cannot be reached. If the
// server has too many clients, or is starting or shutting down, its own error is used.
func unreachable(err error) *rejection {
	if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) &&
		(strings.HasPrefix(pgErr.Code, "53") || strings.HasPrefix(pgErr.Code, "57")) {
		return &rejection{
			code: pgErr.Code, message: pgErr.Message, hint: pgErr.Hint,
			reason: "PostgreSQL does not accept connections",
		}
	}
	return &rejection{code: "08006", message: "the server behind this one cannot be reached", reason: err.Error()}
}

func (s *Server) reject(c *client, r *rejection) error {
	c.login.Code, c.login.Message, c.login.Reason = r.code, r.message, r.reason
	s.record(c.login)
	response := r.response
	if response == nil {
		response = (&pgwire.Error{Code: r.code, Message: r.message, Hint: r.hint}).Encode()
	}
	_, err := c.Write(append(c.greeting, response...))
	return errors.Join(errEnded, err)
}

func (s *Server) cut(c *client) error {
	c.login.Reason = "Faults.CutLogin is set"
	s.record(c.login)
	return errEnded
}
