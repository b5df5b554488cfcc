package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
)

// A Private serves only the programs of this user: on a Unix socket in a private directory
// or, on Windows, on a port of this machine with a generated password.
type Private struct {
	Host           string
	Port           uint16
	User, Password string // of clients; the password is empty if there is a socket

	server *server
	dir    string // of the socket, or empty
}

// StartPrivate starts a proxy that does not log, because its clients report
// failed logins.
func StartPrivate(ctx context.Context, to *engine.Upstream) (_ *Private, err error) {
	u := &upstream{Upstream: to, name: serversOf(to)}
	b := &binding{from: "the proxy's address", upstream: u}
	plan := &plan{bindings: []*binding{b}, upstreams: []*upstream{u}}
	p := &Private{}
	defer func() {
		if err != nil && p.dir != "" {
			os.Remove(p.dir)
		}
	}()
	if runtime.GOOS == "windows" {
		b.address = listener.Address{Host: "127.0.0.1"}
		plan.password = generatePassword()
	} else {
		if p.dir, err = privateDirectory(); err != nil {
			return nil, fmt.Errorf("the directory of the proxy's socket: %w", err)
		}
		if b.address, err = listener.Parse(p.dir, defaultPort); err != nil {
			return nil, err
		}
	}
	p.server = newServer(plan, slog.New(slog.DiscardHandler))
	if err := p.server.start(ctx); err != nil {
		return nil, err
	}
	p.Host, p.Port, p.User, p.Password = b.address.ClientHost(), b.address.Port, u.Stats().User, plan.password.value
	return p, nil
}

// Close ends all sessions.
func (p *Private) Close() {
	p.server.shutdown(nil, nil)
	if p.dir != "" {
		os.Remove(p.dir)
	}
}

// privateDirectory creates a directory for a socket, which only this user can
// access.
func privateDirectory() (string, error) {
	parent := os.TempDir()
	if len(parent) > 60 { // leaves no room for the socket's name on every system
		parent = "/tmp"
	}
	return os.MkdirTemp(parent, "entrapg-")
}
