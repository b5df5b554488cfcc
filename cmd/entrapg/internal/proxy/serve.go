package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/monitor"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/sdnotify"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// serve runs the proxy until a signal or a failure.
func serve(ctx context.Context, p *plan, out *terminal.Output, logger *slog.Logger) error {
	systemd := sdnotify.FromEnvironment()
	notify := func(state string) {
		if err := systemd.Send(state); err != nil {
			logger.Warn("systemd was not notified", "state", state, "error", err)
		}
	}
	ends := make(chan os.Signal, 2)
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ends)
	hangups := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}

	s := newServer(p, logger)
	if p.status != nil {
		listeners, err := listener.Listen(ctx, *p.status)
		if err != nil {
			return fmt.Errorf("%s %s: %w", p.statusFrom, p.status, err)
		}
		for _, l := range listeners {
			defer monitor.Serve(l, pages{s}.all()).Close()
			logger.Info("answering probes and scrapes", "listen", l.Addr().String())
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	if !out.Live && p.password.value != "" && p.password.from == "" {
		logger.Warn(
			"the password was generated and written to standard output; if that is a log, set " + passwordVariable + " instead")
	}
	printBanner(&terminal.Output{Writer: unfailing{out.Writer}, Color: out.Color, Width: out.Width}, p)
	notify(sdnotify.Ready)
	if interval := systemd.Watchdog(); interval > 0 {
		watched, stop := context.WithCancel(ctx)
		defer stop()
		go s.watch(watched, interval, func() { notify(sdnotify.Alive) })
	}
	failure := s.wait(ends, hangups, out.Live)
	notify(sdnotify.Stopping)
	return s.shutdown(failure, ends)
}

// An unfailing writer ignores errors, so that a proxy that cannot print its
// banner still runs.
type unfailing struct{ io.Writer }

func (w unfailing) Write(b []byte) (int, error) {
	w.Writer.Write(b)
	return len(b), nil
}
