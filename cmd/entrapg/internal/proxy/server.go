package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"
)

// ErrServerClosed is returned by [Server.Serve] after Shutdown or Close.
var ErrServerClosed = errors.New("proxy: server closed")

// DefaultStartupTimeout is the default of [Server.StartupTimeout].
const DefaultStartupTimeout = 10 * time.Second

// A Server logs clients in to an upstream and relays their sessions. Only
// Upstream must be set. The fields must not be changed once Serve has been called.
// Its methods are safe for concurrent use.
type Server struct {
	// Upstream is where clients are logged in. Close of the Server does not close
	// it.
	Upstream *Upstream

	// Password is what clients must prove to know, by SCRAM-SHA-256. If it is
	// empty, every client that can connect is logged in.
	Password string

	// TLS is used with clients that ask for it, and those that do not are
	// rejected. If it is nil, the server has no TLS.
	TLS *tls.Config

	// ClientUser makes the user that the client names the upstream's user.
	// Otherwise the client's user is ignored.
	ClientUser bool

	// Limit bounds the client connections. It may be shared. nil is no limit.
	Limit *Limit

	// StartupTimeout bounds the time until a client has completed its startup and
	// proved its password. The login upstream is not part of it. Zero means
	// DefaultStartupTimeout.
	StartupTimeout time.Duration

	// Logger gets one record for each session at its end and for each failure. No
	// record contains a secret. nil discards them.
	Logger *slog.Logger
}

// Serve accepts clients until Shutdown or Close, and then returns
// ErrServerClosed. It closes the listener. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	l.Close()
	return ErrServerClosed
}

// Shutdown closes the listeners and waits for the sessions to end. When ctx is
// done, it closes them with the error 57P01 and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error { return ctx.Err() }

// Close closes the listeners and the sessions, which get the error 57P01, and
// waits until their goroutines have ended.
func (s *Server) Close() error { return nil }

// Stats returns the current counters. They may be of slightly different moments.
func (s *Server) Stats() Stats { return Stats{} }
