package entrapg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/entrapg/entrapg/internal/claims"
)

const (
	// requestLimit bounds a request for a token, which no caller's deadline does.
	// A credential that the program gives may go on for minutes.
	requestLimit = 30 * time.Second

	// lookupLimit bounds the look-up of a user's name, which a login may do without.
	lookupLimit = 10 * time.Second

	// maxCalls bounds how many calls of a credential that heeds no context may
	// hang, each abandoned after requestLimit. Should they never return, there is
	// one more after each spareCall.
	maxCalls  = 2
	spareCall = 10 * time.Minute
)

// A tokenSource holds the one current token of a credential and a scope. While
// it is fresh, get takes a clock reading and an atomic load. Otherwise one
// request is under way at a time, which belongs to no caller.
type tokenSource struct {
	key        sourceKey
	users      int // guarded by the mutex of its tokenSources
	credential *lazyCredential
	now        func() time.Time

	current atomic.Pointer[token]

	requests, failures atomic.Int64

	mu     sync.Mutex // guards what follows, and every change of current; nothing slow runs under it
	asking *request   // nil where no request is under way
	calls  int        // of the credential that have not returned, abandoned ones among them
	spare  time.Time  // when there may be one more, where calls has reached maxCalls
	closed bool

	// For an identity that its database token does not name, so that it is
	// looked up once.
	identity     string
	identityUser claims.Name

	refusals map[role]*refusals // since the role was last let in
	troubled atomic.Bool        // there are some; read without mu
}

// A need is what somebody wants of a tokenSource.
type need struct {
	user   bool            // it has to be known whom the token is for
	logger *slog.Logger    // for what becomes of a request that this starts
	closed <-chan struct{} // ends the wait
}

// A request replaces the current token, or finds out whom it is for. Its results
// are set before done is closed.
type request struct {
	seen     *token // the current token when it began
	user     bool   // find out whom the token is for
	userOnly bool   // of seen, which will do for the rest
	logger   *slog.Logger
	done     chan struct{}
	cancel   context.CancelFunc

	token   *token
	err     error
	userErr error // the token is good, but whom it is for could not be found out this time
}

// get returns a token that has not expired. A new one was requested for this
// call, or for one that waited along with it. Nobody waits while a usable token
// is at hand; one who waits leaves when ctx ends.
func (s *tokenSource) get(ctx context.Context, n need) (_ *token, isNew bool, err error) {
	for {
		t, now := s.current.Load(), s.now()
		usable := t != nil && (!n.user || t.userKnown())
		if usable && now.Before(t.refresh) {
			return t, isNew, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, false, s.failed(err)
		}
		r := s.ask(ctx, n, t)
		if usable && now.Before(t.expires) {
			return t, isNew, nil
		}
		if r == nil {
			continue
		}
		select {
		case <-r.done:
		case <-n.closed:
			return nil, false, errClosed
		case <-ctx.Done():
			return nil, false, s.failed(fmt.Errorf("gave up waiting: %w", ctx.Err()))
		}
		switch {
		case r.err != nil:
			return nil, false, r.err
		case !n.user || r.token.userKnown():
			return r.token, isNew || !r.userOnly, nil
		case r.user:
			return nil, false, r.userErr
		}
		isNew = true // but by the request of somebody who did not need to know the user
	}
}

// ask returns the request under way and starts one where there is none. It
// returns nil where seen is no longer the current token: another request has
// ended since the caller looked.
func (s *tokenSource) ask(ctx context.Context, n need, seen *token) *request {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return failedRequest(errClosed)
	case s.asking != nil:
		return s.asking
	case s.current.Load() != seen:
		return nil
	case s.calls >= maxCalls && s.now().Before(s.spare) && s.spare.Sub(s.now()) <= spareCall:
		return failedRequest(s.failed(errors.New("the credential has not returned from earlier calls")))
	}
	s.calls++
	s.spare = wall(s.now()).Add(spareCall)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
	r := &request{seen: seen, user: n.user, logger: n.logger, done: make(chan struct{}), cancel: cancel}
	switch {
	case seen == nil:
	case seen.userKnown():
		r.user = true // those who needed it need it of the next token too
	case n.user:
		r.userOnly = s.now().Before(seen.expires)
	}
	s.asking = r
	// A credential that heeds no context must not keep the callers waiting.
	abandon := context.AfterFunc(ctx, func() {
		s.finish(r, nil, s.failed(fmt.Errorf("no answer within %v: %w", requestLimit, context.DeadlineExceeded)))
	})
	go func() {
		t, err := (*token)(nil), errors.New("the credential ended its goroutine")
		defer func() {
			if p := recover(); p != nil {
				t, err = nil, withoutToken(fmt.Errorf("the credential panicked: %v", p), "")
			}
			if err != nil {
				err = s.failed(err)
			}
			abandon()
			s.mu.Lock()
			s.calls--
			s.mu.Unlock()
			s.finish(r, t, err)
		}()
		t, err = s.answer(ctx, r)
	}()
	return r
}

func failedRequest(err error) *request {
	r := &request{done: make(chan struct{}), err: err}
	close(r.done)
	return r
}

// finish ends a request: with the token that came or with what went wrong. One
// that was abandoned before still brings its token, for those who come later.
func (s *tokenSource) finish(r *request, t *token, err error) {
	defer r.cancel()
	s.mu.Lock()
	old := s.current.Load()
	if s.asking != r {
		if t != nil && !s.closed && (old == nil || !old.expires.After(t.expires)) {
			s.current.Store(r.next(old, t, s.now()))
		}
		s.mu.Unlock()
		return
	}
	if !s.closed {
		s.current.Store(r.next(old, t, s.now()))
	}
	var failed *TokenError
	if errors.As(err, &failed) {
		s.failures.Add(1)
	}
	s.asking = nil
	r.token, r.err = t, err
	close(r.done)
	s.mu.Unlock()

	if failed != nil && old != nil && s.now().Before(old.expires) {
		r.logger.Warn("entrapg: token refresh failed, the old token serves on", "error", err, "expires", old.expires)
	}
}

// next returns the current token after a request that began with r.seen and
// brought t, nil where it failed. Meanwhile the current one has become old.
func (r *request) next(old, t *token, now time.Time) *token {
	switch {
	case t != nil && r.userOnly && old != r.seen: // seen was refused meanwhile
		return old
	case t != nil && (r.userOnly || old == nil || t.value != old.value):
		return t
	case t != nil: // the credential keeps its own cache and is not ready to replace it
		return t.postponed(now, old.tries)
	case old != nil:
		return old.postponed(now, old.tries)
	}
	return nil
}

// answer does what r is for.
func (s *tokenSource) answer(ctx context.Context, r *request) (t *token, err error) {
	credential, err := s.credential.get()
	if err != nil {
		return nil, err
	}
	if r.userOnly {
		t = new(*r.seen)
	} else {
		access, err := s.getToken(ctx, credential, s.key.scope)
		if err != nil {
			return nil, err
		}
		if t, err = newToken(access, s.now()); err != nil {
			return nil, err
		}
	}
	if r.user {
		r.userErr = s.findUser(ctx, credential, t, r.logger)
	}
	if !r.userOnly {
		r.logger.Debug("entrapg: new token", "credential", s.credential.name, "expires", t.expires, "user", t.user.Role)
	}
	return t, nil
}

func (s *tokenSource) getToken(ctx context.Context, credential azcore.TokenCredential, scope string) (azcore.AccessToken, error) {
	s.requests.Add(1)
	access, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	return access, withoutToken(err, access.Token)
}

// close drops the token and ends a request under way. Whoever waits for it,
// and whoever comes later, gets errClosed.
func (s *tokenSource) close() {
	s.mu.Lock()
	s.closed = true
	s.current.Store(nil)
	r := s.asking
	s.mu.Unlock()
	if r != nil {
		s.finish(r, nil, errClosed)
	}
	s.credential.rest()
}

func (s *tokenSource) failed(err error) error {
	if s.credential.name == managedIdentity && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; %s", err, noEndpointAnswers)
	}
	return &TokenError{Credential: s.credential.name, Scope: s.key.scope, Err: err}
}
