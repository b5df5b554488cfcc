package entrapg

import (
	"context"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// An account is what one connector or pool configuration logs in with: a token
// source, which others may share, and what the server has said to its users. With
// entra_credential=none it is a password, and there is no source.
type account struct {
	source   *tokenSource
	password *token
	logger   *slog.Logger

	closed chan struct{}
	close  func() // may be called more than once

	mu       sync.Mutex           // guards what follows
	refusals map[string]*refusals // of users, since the server last let them in
	troubled atomic.Int64         // how many users that are; read without mu
}

// refusals are tokens in a row that the server refused a user with.
type refusals struct {
	count  int
	last   *token
	resume time.Time // until then, a refused token is kept
}

// openAccount joins the source for key. An account that is dropped without
// being closed leaves it too.
func (s *tokenSources) openAccount(key sourceKey, credential *lazyCredential, logger *slog.Logger) *account {
	a := &account{source: s.join(key, credential), logger: logger, closed: make(chan struct{})}
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
	return t, t.user, final, t.userErr
}

// refuse takes down that the server refused user with t, and drops t, so that
// the next caller has a new one. After a few tokens in a row that were refused,
// the fault lies elsewhere: then the token stays for a while that grows, instead
// of a request for every connection.
func (a *account) refuse(user string, t *token) {
	if a.source != nil && !a.pausing(user, t, a.source.now()) {
		a.source.drop(t)
	}
}

func (a *account) pausing(user string, t *token, now time.Time) bool {
	const free = 3
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.refusals[user]
	if r == nil {
		r = &refusals{}
		if a.refusals == nil {
			a.refusals = map[string]*refusals{}
		}
		a.refusals[user] = r
		a.troubled.Add(1)
	}
	if r.last != t { // else another connection with the same token was here first
		r.last = t
		if r.count++; r.count > free {
			r.resume = wall(now).Add(backoff(r.count - free - 1))
		}
	}
	// A clock that was set back must not make the pause longer than it was.
	return now.Before(r.resume) && r.resume.Sub(now) <= backoff(math.MaxInt)
}

// accept takes down that the server let user in with t. If another host's or
// another user's refusal had t dropped, it is put back.
func (a *account) accept(user string, t *token) {
	if a.source == nil {
		return
	}
	if a.troubled.Load() > 0 {
		a.mu.Lock()
		if a.refusals[user] != nil {
			delete(a.refusals, user)
			a.troubled.Add(-1)
		}
		a.mu.Unlock()
	}
	a.source.restore(t)
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
			stats.User = t.user
		}
	}
}
