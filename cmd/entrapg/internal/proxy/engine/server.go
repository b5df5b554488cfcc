package engine

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// ErrServerClosed is returned by [Server.Serve] after Shutdown or Close.
var ErrServerClosed = errors.New("proxy: server closed")

// DefaultStartupTimeout is the default of [Server.StartupTimeout].
const DefaultStartupTimeout = 10 * time.Second

// maxCancels bounds the cancel requests that are forwarded at once, and
// cancelTimeout bounds each.
const (
	maxCancels    = 64
	cancelTimeout = 10 * time.Second
)

// A Server logs clients in to an upstream and relays their sessions. Only
// Upstream must be set. The fields must not be changed once Serve has been called.
// Its methods are safe for concurrent use.
type Server struct {
	// Upstream is the server to which clients are logged in. Close does not close it.
	Upstream *Upstream

	// Password is the password of clients, which they prove by SCRAM-SHA-256. If it is
	// empty, every client that can connect is logged in. SetPassword replaces it.
	Password string

	// TLS, if not nil, is required of clients over TCP. If it is nil, the server does not
	// support TLS.
	TLS *tls.Config

	// ClientUser makes the user that the client names the upstream's user.
	// Otherwise the client's user is ignored.
	ClientUser bool

	// Limit bounds the number of authenticated clients. Without a password, a client
	// is authenticated once it has sent a startup message. Servers may share a Limit.
	// Cancel requests do not count. nil means no limit.
	Limit *Limit

	// StartupTimeout bounds the time until a client has completed its startup and
	// proved its password. It excludes the login upstream. Zero means
	// DefaultStartupTimeout. The number of such clients is bounded too: when it is
	// reached, the server drops one of them for each new client.
	StartupTimeout time.Duration

	// Logger gets one record for each session at its end and for each failure. Many
	// failures of clients that have not authenticated share a record. No record
	// contains a secret. nil discards them.
	Logger *slog.Logger

	prepare  sync.Once
	terms    pgwire.Terms
	verifier atomic.Pointer[pgwire.Verifier] // nil without a password
	log      *slog.Logger
	quiet    quietLog
	ctx      context.Context // of all logins; ends when sessions are closed
	cancel   context.CancelFunc

	pending     *pendingClients
	keys        keys
	cancelSlots chan struct{} // of requests that are forwarded
	running     sync.WaitGroup

	mu        sync.Mutex // guards the following
	closing   bool       // no longer listening
	ended     bool       // sessions are closed
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}

	accepted, sessions, forwarded atomic.Int64
	received, sent                atomic.Int64 // by sessions that have ended
	logins                        histogram
	rejected                      rejections
}

// setUp initializes the fields that depend on the exported ones.
func (s *Server) setUp() {
	s.prepare.Do(func() {
		s.terms = pgwire.Terms{TLS: pgwire.ServerTLS(s.TLS), Newest: pgwire.Version32}
		if s.Password != "" {
			s.verifier.Store(pgwire.NewVerifier(s.Password, pgwire.ScramIterations))
		}
		s.log = s.Logger
		if s.log == nil {
			s.log = slog.New(slog.DiscardHandler)
		}
		s.quiet.log, s.pending = s.log, newPendingClients(maxPending(s.Limit.size(), maxFiles()))
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.cancelSlots = make(chan struct{}, maxCancels)
		s.listeners, s.conns = map[net.Listener]struct{}{}, map[*conn]struct{}{}
	})
}

// SetPassword replaces the password for clients that authenticate later. Sessions
// continue. The password must not be empty.
func (s *Server) SetPassword(password string) {
	s.setUp()
	s.verifier.Store(pgwire.NewVerifier(password, pgwire.ScramIterations))
}

// Serve accepts clients until Shutdown or Close, and then returns
// ErrServerClosed. It closes the listener. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	s.setUp()
	defer l.Close()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, l)
	}()
	for pause := time.Duration(0); ; {
		network, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accept(network)
		case s.isClosing():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, for example
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("proxy: accept failed", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
		}
	}
}

// accept starts to serve a connection.
func (s *Server) accept(network net.Conn) {
	s.accepted.Add(1)
	c := &conn{server: s, network: network, begun: time.Now()}
	network.SetDeadline(c.begun.Add(cmp.Or(s.StartupTimeout, DefaultStartupTimeout)))
	s.pending.add(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing { // and possibly waiting for those that are running
		network.Close()
		s.pending.remove(c)
		return
	}
	s.conns[c] = struct{}{}
	s.running.Go(c.serve)
}

// done forgets a connection that has ended.
func (s *Server) done(c *conn) {
	s.pending.remove(c)
	if c.admitted { // before Stats no longer counts the connection
		s.Limit.release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	received, sent := c.bytes()
	s.received.Add(received)
	s.sent.Add(sent)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// forward forwards a cancel request to the server of the session that has its
// key. At most one request of a session waits; later ones are merged into it.
func (s *Server) forward(k *key) {
	if !k.waiting.CompareAndSwap(false, true) {
		return
	}
	k.turn <- struct{}{}
	defer func() { <-k.turn }()
	ctx, cancel := context.WithTimeout(s.ctx, cancelTimeout)
	defer cancel()
	var err error
	select {
	case s.cancelSlots <- struct{}{}:
		defer func() { <-s.cancelSlots }()
		k.waiting.Store(false) // the next one may be for another query
		err = k.server.Cancel(ctx, k.real)
	case <-ctx.Done():
		k.waiting.Store(false)
		err = ctx.Err()
	}
	if err != nil {
		s.log.Warn("proxy: cancel request failed", "server", k.server.Address, "error", err)
		return
	}
	s.forwarded.Add(1)
}

// Shutdown closes the listeners, drops clients that have not authenticated, and
// waits for the sessions to end. When ctx is done, it closes them as Close does
// and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopListening()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	defer s.quiet.flush()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.endSessions()
		<-done
		return ctx.Err()
	}
}

// Close closes the listeners and the sessions, and waits until their goroutines
// have ended. Clients that are not in the middle of a result get the error 57P01.
func (s *Server) Close() error {
	s.stopListening()
	s.endSessions()
	s.running.Wait()
	s.quiet.flush()
	return nil
}

func (s *Server) stopListening() {
	s.setUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	s.pending.clear()
}

func (s *Server) endSessions() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for c := range s.conns {
		c.end()
	}
}

// Stats returns the current counters, which are not a consistent snapshot.
func (s *Server) Stats() Stats {
	s.setUp()
	s.mu.Lock()
	received, sent := s.received.Load(), s.sent.Load()
	open := int64(len(s.conns))
	for c := range s.conns {
		r, w := c.bytes()
		received, sent = received+r, sent+w
	}
	s.mu.Unlock()
	return Stats{
		Open: open, Waiting: int64(s.pending.count()), Accepted: s.accepted.Load(), Sessions: s.sessions.Load(), Cancels: s.forwarded.Load(),
		Login: s.logins.snapshot(), Rejected: s.rejected.snapshot(),
		FromClients: received, ToClients: sent,
	}
}
