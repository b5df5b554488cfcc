package entrapgtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// What a client may send before it has logged in is bounded, as in PostgreSQL
// (authentication_timeout, MAX_STARTUP_PACKET_LENGTH, PG_MAX_AUTH_TOKEN_LENGTH).
const (
	loginTimeout = time.Minute
	maxStartup   = 10_000
	maxPassword  = 65_535
)

// Request codes that stand where a startup message has its protocol version.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssRequest    = 80877104
)

func (s *Server) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if sleep(s.ctx, 10*time.Millisecond) != nil { // else out of file descriptors, say
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

// track takes down a connection that Close has to close. It returns false, with
// the connection closed, once Close has begun.
func (s *Server) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		conn.Close()
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) untrack(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// session serves one client from its first byte to its last.
func (s *Server) session(network net.Conn) {
	faults := s.fault()
	if faults.CutLogin == AtConnect {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, loginTimeout)
	defer cancel()
	network.SetDeadline(time.Now().Add(loginTimeout))

	c, err := s.negotiate(ctx, network, faults)
	if err != nil {
		return // there is nobody to tell
	}
	upstream, err := s.logIn(ctx, c, faults)
	if err != nil || !s.track(upstream) {
		return
	}
	defer s.untrack(upstream)
	network.SetDeadline(time.Time{})
	relay(c, upstream)
}

// A client is one whose startup message has come.
type client struct {
	net.Conn // with TLS, if the client asked for it
	startup  pgproto3.StartupMessage
	raw      []byte // the startup message as it came
	greeting []byte // what goes before the first message to it
	login    Login
}

var errEnded = errors.New("the session has ended")

// negotiate answers requests for encryption until the startup message comes.
// It reads no byte ahead: what a man in the middle slips in before TLS must not
// count as sent under it.
func (s *Server) negotiate(ctx context.Context, conn net.Conn, faults Faults) (*client, error) {
	const requests = 3 // for GSS, for TLS, and the startup itself
	encrypted := false
	for range requests {
		head := make([]byte, 8)
		if _, err := io.ReadFull(conn, head); err != nil {
			return nil, err
		}
		code := binary.BigEndian.Uint32(head[4:])
		direct := head[0] == 0x16 && !faults.NoTLS // a TLS record: sslnegotiation=direct
		switch {
		case !encrypted && (direct || code == sslRequest && !faults.NoTLS):
			plain := conn
			if direct {
				plain = &unread{Conn: conn, head: head}
			} else if _, err := conn.Write([]byte{'S'}); err != nil {
				return nil, err
			}
			secured := tls.Server(plain, s.certificate.tls)
			if err := secured.HandshakeContext(ctx); err != nil {
				return nil, err
			}
			conn, encrypted = secured, true
			if faults.CutLogin == AfterTLS {
				return nil, errEnded
			}
		case code == sslRequest || code == gssRequest:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			length := binary.BigEndian.Uint32(head)
			if length < 8 || length > maxStartup {
				return nil, errEnded
			}
			raw := append(head, make([]byte, length-8)...)
			if _, err := io.ReadFull(conn, raw[8:]); err != nil {
				return nil, err
			}
			if code == cancelRequest {
				return nil, s.cancelQuery(ctx, raw)
			}
			return newClient(conn, raw, encrypted)
		}
	}
	return nil, errEnded
}

func newClient(conn net.Conn, raw []byte, encrypted bool) (*client, error) {
	c := &client{Conn: conn, raw: raw}
	if err := c.startup.Decode(raw[4:]); err != nil {
		return nil, err
	}
	c.login = Login{
		Time: time.Now(), User: c.startup.Parameters["user"], Database: c.startup.Parameters["database"],
		Application: c.startup.Parameters["application_name"], TLS: encrypted,
	}
	if c.login.Database == "" {
		c.login.Database = c.login.User
	}
	if c.startup.ProtocolVersion != pgproto3.ProtocolVersion30 {
		c.greeting, _ = (&pgproto3.NegotiateProtocolVersion{}).Encode(nil)
	}
	return c, nil
}

// unread gives back the bytes that were read to see what they are.
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

// logIn takes a client from its startup message to a session of the real
// server, and returns the connection to that.
func (s *Server) logIn(ctx context.Context, c *client, faults Faults) (net.Conn, error) {
	if faults.CutLogin == AfterStartup {
		return nil, s.cut(c)
	}
	if !c.login.TLS {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		return nil, s.refuse(c, &refusal{
			code: invalidAuthorization, reason: "no TLS",
			message: fmt.Sprintf("no pg_hba.conf entry for host %q, user %q, database %q, no encryption",
				host, c.login.User, c.login.Database),
		})
	}
	m, mapped, err := s.mappingOf(ctx, c.login.User)
	if err != nil {
		return nil, s.refuse(c, unreachable(err))
	}
	if !mapped {
		return s.handOver(ctx, c)
	}

	ask := c.askPassword
	if s.config.OAuth {
		ask = c.askBearer
	}
	password, err := ask()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, faults.LoginDelay); err != nil {
		return nil, err
	}
	if faults.CutLogin == AfterPassword {
		return nil, s.cut(c)
	}
	if r := faults.Refuse; r != nil {
		return nil, s.refuse(c, &refusal{code: r.Code, message: r.Message, hint: r.Hint, reason: "refused, as Faults.Refuse has it"})
	}
	if r := s.judge(c.login.User, m, password); r != nil {
		if s.config.OAuth {
			s.rejectBearer(c)
		}
		return nil, s.refuse(c, r)
	}
	return s.openSession(ctx, c, m)
}

// askPassword asks for a password in cleartext, as Azure does for a mapped role.
func (c *client) askPassword() (string, error) {
	kind, body, err := c.ask(&pgproto3.AuthenticationCleartextPassword{})
	if err != nil {
		return "", err
	}
	password, ended := bytes.CutSuffix(body, []byte{0})
	if kind != 'p' || !ended {
		return "", errEnded
	}
	return string(password), nil
}

// ask sends a request and returns the answer's type and content.
func (c *client) ask(request pgproto3.BackendMessage) (kind byte, body []byte, err error) {
	out, err := request.Encode(c.greeting)
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

// openSession logs in to the real server as the client's role and tells the
// client that it is in.
func (s *Server) openSession(ctx context.Context, c *client, m mapping) (net.Conn, error) {
	config := s.upstream.Config.Copy()
	config.User, config.Database = c.login.User, c.login.Database
	maps.Copy(config.RuntimeParams, c.startup.Parameters)
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		return name == "user" || name == "database" || strings.HasPrefix(name, "_pq_.")
	})
	if s.config.GroupSync {
		config.RuntimeParams[groupSyncSetting] = "on"
	}
	if m.admin {
		config.RuntimeParams[tenantSetting] = s.Tenant.ID
		if err := s.administer(ctx, c.login.Database); err != nil {
			return nil, s.refuse(c, unreachable(err))
		}
	}
	// What pgconn has read ahead is behind the reader that it gives its frontend,
	// and on a slow machine it does read ahead.
	var reader io.Reader
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = r
		return pgproto3.NewFrontend(r, w)
	}
	conn, err := s.connectAs(ctx, config)
	var said *pgconn.PgError
	switch {
	case errors.As(err, &said):
		return nil, s.refuse(c, &refusal{
			code: said.Code, message: said.Message, hint: said.Hint, reason: "the token is good, but PostgreSQL refuses",
		})
	case err != nil:
		return nil, s.refuse(c, unreachable(err))
	}
	session, err := conn.Hijack()
	if err != nil {
		return nil, err
	}

	c.login.Accepted = true
	s.record(c.login)
	out, _ := (&pgproto3.AuthenticationOk{}).Encode(nil)
	for name, value := range session.ParameterStatuses {
		out, _ = (&pgproto3.ParameterStatus{Name: name, Value: value}).Encode(out)
	}
	out, _ = (&pgproto3.BackendKeyData{ProcessID: session.PID, SecretKey: session.SecretKey}).Encode(out)
	out, _ = (&pgproto3.ReadyForQuery{TxStatus: session.TxStatus}).Encode(out)
	if _, err := c.Write(out); err != nil {
		session.Conn.Close()
		return nil, err
	}
	upstream := &hijacked{Conn: session.Conn, reader: reader}
	if m.admin {
		return newAdminConn(s.ctx, s, upstream, c.login.Database), nil
	}
	return upstream, nil
}

// hijacked is a connection taken over from pgconn, read through pgconn's reader.
type hijacked struct {
	net.Conn
	reader io.Reader
}

func (h *hijacked) Read(b []byte) (int, error) { return h.reader.Read(b) }

// handOver leaves a role that is not mapped to the real server, which sees the
// client's own startup message and asks in its own way.
func (s *Server) handOver(ctx context.Context, c *client) (net.Conn, error) {
	upstream, err := s.dialUpstream(ctx)
	if err != nil {
		return nil, s.refuse(c, unreachable(err))
	}
	c.login.Reason = "the role is not mapped to Entra: PostgreSQL decides"
	s.record(c.login)
	if _, err := upstream.Write(c.raw); err != nil {
		upstream.Close()
		return nil, err
	}
	return upstream, nil
}

// cancelQuery passes on a request to cancel; keys are the real server's own.
func (s *Server) cancelQuery(ctx context.Context, raw []byte) error {
	upstream, err := s.dialUpstream(ctx)
	if err != nil {
		return err
	}
	if !s.track(upstream) {
		return errEnded
	}
	defer s.untrack(upstream)
	if _, err := upstream.Write(raw); err != nil {
		return err
	}
	// The server closes the connection once the signal is on its way.
	upstream.SetReadDeadline(time.Now().Add(loginTimeout))
	_, _ = io.Copy(io.Discard, upstream)
	return errEnded
}

// dialUpstream connects to the real server without TLS, under which SCRAM would
// bind the client's channel to a certificate that it has not seen.
func (s *Server) dialUpstream(ctx context.Context) (net.Conn, error) {
	network, address := pgconn.NetworkAddress(s.upstream.Host, s.upstream.Port)
	return s.upstream.DialFunc(ctx, network, address)
}

// unreachable rejects a login because the server behind the front is: in that
// server's own words if it has too many clients, or is starting or shutting down.
func unreachable(err error) *refusal {
	if said := new(pgconn.PgError); errors.As(err, &said) && (strings.HasPrefix(said.Code, "53") || strings.HasPrefix(said.Code, "57")) {
		return &refusal{code: said.Code, message: said.Message, hint: said.Hint, reason: "PostgreSQL accepts no connection"}
	}
	return &refusal{code: "08006", message: "the server behind this one cannot be reached", reason: err.Error()}
}

func (s *Server) refuse(c *client, r *refusal) error {
	c.login.Code, c.login.Message, c.login.Reason = r.code, r.message, r.reason
	s.record(c.login)
	out, err := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: r.code, Message: r.message, Hint: r.hint,
	}).Encode(nil)
	if err == nil {
		_, err = c.Write(out)
	}
	return errors.Join(errEnded, err)
}

func (s *Server) cut(c *client) error {
	c.login.Reason = "cut, as Faults.CutLogin has it"
	s.record(c.login)
	return errEnded
}

// relay passes bytes on in both directions until either side ends.
func relay(client, upstream net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(upstream, client)
		upstream.Close()
	}()
	_, _ = io.Copy(client, upstream)
	client.Close()
	<-done
}
