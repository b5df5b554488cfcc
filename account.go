package entrapg

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
)

// An account is what one connector or pool configuration logs in with: a token
// source, which others may share, for one server. With entra_credential=none it is
// a password, and there is no source.
type account struct {
	source   *tokenSource
	server   string // whose answers to a token are taken down together
	password *token
	logger   *slog.Logger

	closed chan struct{}
	close  func() // may be called more than once
}

// openAccount joins the source for key. An account that is dropped without
// being closed leaves it too.
func (s *tokenSources) openAccount(key sourceKey, credential *lazyCredential, server string, logger *slog.Logger) *account {
	a := &account{source: s.join(key, credential), server: server, logger: logger, closed: make(chan struct{})}
	dropped := runtime.AddCleanup(a, s.leave, a.source)
	a.close = sync.OnceFunc(func() {
		dropped.Stop()
		runtime.KeepAlive(a) // else the cleanup could be under way, and the source left twice
		close(a.closed)
		s.leave(a.source)
	})
	return a
}

// passwordAccount logs in with a password of PostgreSQL's own.
func passwordAccount(password string) *account {
	a := &account{password: &token{value: password}, closed: make(chan struct{})}
	a.close = sync.OnceFunc(func() { close(a.closed) })
	return a
}

func (a *account) isClosed() bool {
	select {
	case <-a.closed:
		return true
	default:
		return false
	}
}

// get returns a token, and the user to log in as: the one that is set, or whom
// the token is for. Where that is refused, final tells that no other token would
// do better. See [tokenSource.get] for the rest.
func (a *account) get(ctx context.Context, set string) (t *token, user string, final bool, err error) {
	if a.source == nil {
		return a.password, set, true, nil
	}
	t, final, err = a.source.get(ctx, need{user: set == "", logger: a.logger, closed: a.closed})
	switch {
	case err != nil:
		return nil, "", false, err
	case set != "":
		return t, set, final, nil
	}
	return t, t.user.Role, final, t.userErr
}

// refuse takes down that the server refused user with t; see [tokenSource.refuse].
func (a *account) refuse(user string, t *token) {
	if a.source != nil {
		a.source.refuse(role{a.server, user}, t)
	}
}

// accept takes down that the server let user in with t; see [tokenSource.accept].
func (a *account) accept(user string, t *token) {
	if a.source != nil {
		a.source.accept(role{a.server, user}, t)
	}
}

// report adds what is known of the token to stats.
func (a *account) report(stats *Stats) {
	if a.source == nil {
		return
	}
	stats.TokenRequests, stats.TokenFailures = a.source.requests.Load(), a.source.failures.Load()
	if t := a.source.current.Load(); t != nil && !a.isClosed() {
		stats.TokenExpires = t.expires
		if stats.User == "" {
			stats.User = t.user.Role
		}
	}
}
