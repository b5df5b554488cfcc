package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
)

// A server serves the bindings of a plan.
type server struct {
	plan    *plan
	logger  *slog.Logger
	engines []*engine.Server // of each binding
	failed  chan error       // of the first listener that failed
	serving sync.WaitGroup
	begun   time.Time

	started, draining atomic.Bool
}

func newServer(plan *plan, logger *slog.Logger) *server {
	s := &server{plan: plan, logger: logger, failed: make(chan error, 1), begun: time.Now()}
	for _, b := range plan.bindings {
		engine := &engine.Server{
			Upstream: b.upstream.Upstream, TLS: plan.tlsConfig(b), Limit: plan.limit,
			ClientUser: plan.clientUser && b.upstream.userIsUnset(), Password: plan.passwordOf(b),
		}
		s.engines = append(s.engines, engine)
	}
	return s
}

// start opens all listeners, or none.
func (s *server) start(ctx context.Context) error {
	open := make([][]net.Listener, len(s.plan.bindings))
	for i, b := range s.plan.bindings {
		var err error
		if open[i], err = listener.Listen(ctx, b.address); err != nil {
			for _, listeners := range open {
				for _, l := range listeners {
					l.Close()
				}
			}
			return fmt.Errorf("%s: %w", b.from, err)
		}
		if tcp, ok := open[i][0].Addr().(*net.TCPAddr); ok {
			b.address.Port = uint16(tcp.Port) // if it was 0
		}
	}
	for i, b := range s.plan.bindings {
		s.engines[i].Logger = s.logger.With("listen", b.address.String(), "upstream", b.upstream.name)
		for _, l := range open[i] {
			s.logger.Info("listening", "listen", l.Addr().String(), "upstream", b.upstream.name)
			s.serving.Go(func() {
				if err := s.engines[i].Serve(l); !errors.Is(err, engine.ErrServerClosed) {
					select {
					case s.failed <- fmt.Errorf("%s: %w", b.from, err):
					default:
					}
				}
			})
		}
	}
	s.started.Store(true)
	return nil
}

// wait waits for a signal that ends the proxy, or returns the error of a listener
// that fails. On a terminal, SIGHUP means that the terminal was closed, and ends
// the proxy. Otherwise, the files are read again.
func (s *server) wait(ends, hangups <-chan os.Signal, onTerminal bool) error {
	for {
		select {
		case <-ends:
			return nil
		case err := <-s.failed:
			return err
		case <-hangups:
			if onTerminal {
				return nil
			}
			s.reload()
		}
	}
}

// watch calls alive in each interval, unless an engine is stuck, until ctx ends. It
// runs beside wait, because a slow call must not delay signals.
func (s *server) watch(ctx context.Context, interval time.Duration, alive func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, e := range s.engines {
				e.Stats()
			}
			alive()
		}
	}
}

// reload reads the certificate and the password again. If a file is invalid, the last
// value remains in use.
func (s *server) reload() {
	if s.plan.certificate != nil {
		s.plan.certificate.Reload()
	}
	file := s.plan.passwordFile
	if file == "" {
		return
	}
	password, err := findPassword(file)
	if err != nil {
		s.logger.Warn("the password cannot be read again; the last one remains in use", "file", file, "error", err)
		return
	}
	for i, b := range s.plan.bindings {
		if !b.address.Private() {
			s.engines[i].SetPassword(password.value)
		}
	}
	s.logger.Info("read the password again", "file", file)
}

// shutdown stops listening, and closes the sessions after the grace period or at
// the next signal, which is an error. It returns cause if there is one.
func (s *server) shutdown(cause error, ends <-chan os.Signal) error {
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.plan.grace)
	defer cancel()
	var open int64
	for _, e := range s.engines {
		open += e.Stats().Open
	}
	s.logger.Info("stopping", "connections", open, "grace", s.plan.grace)
	stopped := make(chan struct{})
	go func() {
		var all sync.WaitGroup
		for _, e := range s.engines {
			all.Go(func() { e.Shutdown(ctx) })
		}
		all.Wait()
		s.serving.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ends:
		cancel()
		<-stopped
		if cause == nil {
			cause = command.ErrReported
		}
	}
	s.logger.Info("stopped")
	return cause
}
