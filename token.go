package entrapg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/entrapg/entrapg/internal/claims"
)

const (
	// requestLimit bounds a request for a token, which no caller's deadline does.
	// Off Azure, the managed-identity endpoint can keep azidentity for minutes.
	requestLimit = 30 * time.Second

	// lookupLimit bounds the look-up of a user's name, which a login may do without.
	lookupLimit = 10 * time.Second

	// maxCalls bounds how many calls of a credential that heeds no context may
	// hang, each abandoned after requestLimit. Should they never return, there is
	// one more after each spareCall.
	maxCalls  = 2
	spareCall = 10 * time.Minute

	// refreshMargin is how long before its expiry a token is replaced, where the
	// credential says nothing and the token does not live too briefly for it.
	refreshMargin = 5 * time.Minute

	// maxToken is what a password message may carry: PostgreSQL takes 65,535
	// bytes (PG_MAX_AUTH_TOKEN_LENGTH) with the length word and the final NUL.
	maxToken = 65535 - 4 - 1
)

// A token is one access token and what is known about it. It never changes;
// news about it makes a new one. Times are wall-clock, without a monotonic
// reading: that stands still while a laptop sleeps, and the token does not.
type token struct {
	value   string
	expires time.Time
	refresh time.Time   // from here on, the next Connect has it replaced; never later than expires
	tries   int         // attempts to replace it so far that brought nothing new
	name    claims.Name // of the user that it is for; empty where nobody asked yet
	userErr error       // why there is no such user
}

// userFor returns the user to log in as: the one that is set, else the one that
// the token is for.
func (t *token) userFor(set string) (string, error) {
	if set != "" {
		return set, nil
	}
	return t.name.Role, t.userErr
}

// named reports whether it is known whom the token is for, or that it is for
// nobody.
func (t *token) named() bool { return t.name.Role != "" || t.userErr != nil }

// A tokenSource holds the one current token of a credential and a scope. While
// it is fresh, get takes a clock reading and an atomic load. Otherwise one
// request is under way at a time, which belongs to no caller.
type tokenSource struct {
	key        sourceKey
	users      int // guarded by the mutex of its tokenSources
	credential *lazyCredential
	scope      string
	management string // scope of the token that helps to name another
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
	identityName claims.Name
}

// A need is what somebody wants of a tokenSource.
type need struct {
	name   bool            // the token has to be named
	logger *slog.Logger    // for what happens to a request that this starts
	closed <-chan struct{} // ends the wait
}

// A request replaces the current token, or names it. Its results are set before
// done is closed.
type request struct {
	need
	seen   *token // the current token when it began
	names  bool   // seen will do, once it is named
	done   chan struct{}
	cancel context.CancelFunc

	token   *token
	err     error
	nameErr error // the token is good, but whom it is for could not be found out this time
}

// get returns a token that has not expired. A new one was requested for this
// call, or for one that waited along with it. Nobody waits while a usable token
// is at hand; one who waits leaves when ctx ends.
func (s *tokenSource) get(ctx context.Context, n need) (_ *token, isNew bool, err error) {
	for {
		t, now := s.current.Load(), s.now()
		usable := t != nil && (!n.name || t.named())
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
		case !n.name || r.token.named():
			return r.token, isNew || !r.names, nil
		case r.name:
			return nil, false, r.nameErr
		}
		isNew = true // but somebody else's request, who needed no name
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
	case s.calls >= maxCalls && s.now().Before(s.spare):
		return failedRequest(s.failed(errors.New("the credential has not returned from earlier calls")))
	}
	s.calls++
	s.spare = wall(s.now()).Add(spareCall)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
	named := seen != nil && seen.named()
	r := &request{
		need: n, seen: seen, names: n.name && !named && seen != nil && s.now().Before(seen.expires),
		done: make(chan struct{}), cancel: cancel,
	}
	r.name = n.name || named // who needs a name must find it in the next token too
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
	abandoned := s.asking != r
	old := s.current.Load()
	switch {
	case s.closed || abandoned && (t == nil || old != nil && old.expires.After(t.expires)):
	case t != nil && r.names:
		if old == r.seen { // else it was refused meanwhile
			s.current.Store(t)
		}
	case t != nil && old != nil && t.value == old.value:
		// The credential keeps its own cache and is not ready to replace it.
		t.postpone(s.now(), old.tries)
		s.current.Store(t)
	case t != nil:
		s.current.Store(t)
	case old != nil:
		later := *old
		later.postpone(s.now(), old.tries)
		s.current.Store(&later)
	}
	var failed *TokenError
	if abandoned {
		s.mu.Unlock()
		return
	}
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

// backoff is the pause after so many attempts in vain: a second, two, four, up to a minute.
func backoff(tries int) time.Duration { return min(time.Second<<min(tries, 6), time.Minute) }

// postpone puts off the next attempt to replace t, for longer each time.
func (t *token) postpone(now time.Time, tries int) {
	pause := backoff(tries)
	t.refresh = wall(now).Add(pause/2 + rand.N(pause/2))
	if t.refresh.After(t.expires) {
		t.refresh = t.expires
	}
	t.tries = tries + 1
}

// answer does what r is for.
func (s *tokenSource) answer(ctx context.Context, r *request) (t *token, err error) {
	credential, err := s.credential.get()
	if err != nil {
		return nil, err
	}
	if r.names {
		t = new(*r.seen)
	} else {
		access, err := s.getToken(ctx, credential, s.scope)
		if err != nil {
			return nil, err
		}
		if t, err = newToken(access, s.now()); err != nil {
			return nil, err
		}
	}
	if r.name {
		r.nameErr = s.nameToken(ctx, credential, t, r.logger)
	}
	if !r.names {
		r.logger.Debug("entrapg: new token", "credential", s.credential.name, "expires", t.expires, "user", t.name.Role)
	}
	return t, nil
}

func (s *tokenSource) getToken(ctx context.Context, credential azcore.TokenCredential, scope string) (azcore.AccessToken, error) {
	s.requests.Add(1)
	access, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	return access, withoutToken(err, access.Token)
}

// newToken checks what a credential returned as far as that can be done
// without knowing what a token looks like: it need not be a JSON Web Token.
func newToken(answer azcore.AccessToken, now time.Time) (*token, error) {
	t := &token{value: answer.Token, expires: wall(answer.ExpiresOn)}
	now = wall(now)
	switch {
	case t.value == "":
		return nil, errors.New("the credential returned an empty token")
	case len(t.value) > maxToken:
		return nil, fmt.Errorf("the credential returned a token of %d bytes, and PostgreSQL takes %d at the most", len(t.value), maxToken)
	case answer.ExpiresOn.IsZero():
		return nil, errors.New("the credential returned a token without ExpiresOn, which has to say when it expires")
	case !now.Before(t.expires):
		return nil, fmt.Errorf("the credential returned a token that expired at %s: check this machine's clock and the credential's cache", t.expires.UTC().Format(time.RFC3339))
	}
	for _, b := range []byte(t.value) {
		if b <= ' ' || b >= 0x7f || b == '"' || b == '\'' {
			return nil, errors.New("the credential returned a malformed token, with white space, quotes or other characters that no token has: it has to be the bare token")
		}
	}
	t.refresh = t.expires.Add(-min(refreshMargin, t.expires.Sub(now)/4))
	if on := wall(answer.RefreshOn); on.After(now) && on.Before(t.expires) {
		t.refresh = on
	}
	return t, nil
}

// wall strips the monotonic reading, which Before would prefer.
func wall(t time.Time) time.Time { return t.Round(0) }

// drop forgets t where it is current, so that the next caller has a new one.
func (s *tokenSource) drop(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if current := s.current.Load(); current != nil && current.value == t.value {
		s.current.Store(nil)
	}
}

// restore puts t back where another host's or another user's refusal had it
// dropped.
func (s *tokenSource) restore(t *token) {
	if s.current.Load() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() == nil && !s.closed {
		s.current.Store(t)
	}
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
	var username *UsernameError
	if errors.As(err, &username) || errors.Is(err, errClosed) {
		return err
	}
	if s.credential.name == managedIdentity && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; no managed-identity endpoint has answered, and outside Azure there is none", err)
	}
	return &TokenError{Credential: s.credential.name, Scope: s.scope, Err: err}
}
