package entrapg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
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
	refresh time.Time // from here on, the next Connect has it replaced; never later than expires
	tries   int       // attempts to replace it so far that brought nothing new
	user    string    // derived from the claims; empty where nobody asked for it
	userErr error     // why there is no such user
}

// userFor returns the user to log in as: the one that is set, else the one that
// the token is for.
func (t *token) userFor(set string) (string, error) {
	switch {
	case set != "":
		return set, nil
	case t.user == "" && t.userErr == nil:
		return "", &UsernameError{Problem: "the one that was set has been removed"}
	}
	return t.user, t.userErr
}

// tokenSource holds the one current token of a credential and a scope. While
// it is fresh, get takes a clock reading and an atomic load. Otherwise one
// request is under way at a time, which belongs to no caller.
type tokenSource struct {
	credential *lazyCredential
	name       string // of the credential
	scope      string
	management string // scope of the token that helps to derive a user; empty where none is to be derived
	logger     *slog.Logger
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
	identity, identityUser string

	refusals map[string]*refusals // of users, since the server last let them in
	troubled atomic.Int64         // how many users that are; read without mu
}

// refusals are tokens in a row that the server refused a user with.
type refusals struct {
	count  int
	last   *token
	resume time.Time // until then, a refused token is kept
}

// A request is one call of the credential. Its fields are set before done is closed.
type request struct {
	done   chan struct{}
	cancel context.CancelFunc
	token  *token
	err    error
}

// get returns a token that has not expired. A new one was requested for this
// call, or for one that waited along with it. Nobody waits while a usable token
// is at hand; one who waits leaves when ctx ends.
func (s *tokenSource) get(ctx context.Context) (t *token, isNew bool, err error) {
	for {
		t, now := s.current.Load(), s.now()
		if t != nil && now.Before(t.refresh) {
			return t, false, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, false, s.failed(err)
		}
		r := s.ask(ctx, t)
		if t != nil && now.Before(t.expires) {
			return t, false, nil
		}
		if r == nil {
			continue
		}
		select {
		case <-r.done:
			return r.token, true, r.err
		case <-ctx.Done():
			return nil, false, s.failed(fmt.Errorf("gave up waiting: %w", ctx.Err()))
		}
	}
}

// ask returns the request under way and starts one where there is none. It
// returns nil where seen is no longer the current token: another request has
// ended since the caller looked.
func (s *tokenSource) ask(ctx context.Context, seen *token) *request {
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
	r := &request{done: make(chan struct{}), cancel: cancel}
	s.asking = r
	// A credential that heeds no context must not keep the callers waiting.
	abandon := context.AfterFunc(ctx, func() {
		s.finish(r, nil, s.failed(fmt.Errorf("no answer within %v: %w", requestLimit, context.DeadlineExceeded)))
	})
	go func() {
		t, err := (*token)(nil), errors.New("the credential ended its goroutine")
		defer func() {
			if p := recover(); p != nil {
				t, err = nil, fmt.Errorf("the credential panicked: %v", p)
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
		t, err = s.request(ctx)
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
	if !abandoned {
		s.asking = nil
		r.token, r.err = t, err
		close(r.done)
	}
	s.mu.Unlock()

	var refresh *TokenError
	if abandoned || !errors.As(err, &refresh) {
		return
	}
	s.failures.Add(1)
	if old != nil && s.now().Before(old.expires) {
		s.logger.Warn("entrapg: token refresh failed, the old token serves on", "error", err, "expires", old.expires)
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

// request asks the credential.
func (s *tokenSource) request(ctx context.Context) (*token, error) {
	credential, err := s.credential.get()
	if err != nil {
		return nil, err
	}
	answer, err := s.getToken(ctx, credential, s.scope)
	switch {
	case err != nil && answer.Token != "" && strings.Contains(err.Error(), answer.Token):
		return nil, errors.New("the credential failed, with an error that shows a token and is not repeated here")
	case err != nil:
		return nil, err
	}
	t, err := newToken(answer, s.now())
	if err != nil {
		return nil, err
	}
	if s.management != "" {
		var lookup error
		if t.user, lookup, t.userErr = s.deriveUser(ctx, credential, t.value); t.userErr != nil && lookup != nil {
			return nil, t.userErr // not for good: the next look-up may succeed
		}
	}
	s.logger.Debug("entrapg: new token", "credential", s.name, "expires", t.expires, "user", t.user)
	return t, nil
}

func (s *tokenSource) getToken(ctx context.Context, credential azcore.TokenCredential, scope string) (azcore.AccessToken, error) {
	s.requests.Add(1)
	return credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
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

// deriveUser finds the user that a token is for. Where the token names nobody,
// one for Azure Resource Manager may: it is asked for once for each identity.
// What went wrong with that is lookup, apart from err: there may be a user all
// the same.
func (s *tokenSource) deriveUser(ctx context.Context, credential azcore.TokenCredential, value string) (user string, lookup, err error) {
	c, err := parseClaims(value)
	if err != nil {
		return "", nil, &UsernameError{Problem: err.Error() + ", so that no user can be derived from it"}
	}
	if user = c.roleName(); user != "" {
		return user, nil, nil
	}
	identity := c.identity()
	s.mu.Lock()
	if identity != "" && identity == s.identity {
		user = s.identityUser
	}
	s.mu.Unlock()
	if user != "" {
		return user, nil, nil
	}

	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	answer, lookup := s.getToken(ctx, credential, s.management)
	if lookup != nil {
		s.failures.Add(1)
		s.logger.Warn("entrapg: no token for Azure Resource Manager to derive the user from", "error", lookup)
	} else if m, err := parseClaims(answer.Token); err == nil {
		user = m.roleName()
	}
	if user == "" {
		user = c.applicationName()
	}
	if user == "" {
		return "", lookup, &UsernameError{Problem: "nothing in the token names one", Claims: c.keys(), Err: lookup}
	}
	if lookup == nil {
		s.mu.Lock()
		s.identity, s.identityUser = identity, user
		s.mu.Unlock()
	}
	return user, lookup, nil
}

// refuse takes down that the server refused user with t, and drops t, so that
// the next caller has a new one. After a few tokens in a row that were refused,
// the fault lies elsewhere: then the token stays for a while that grows, instead
// of a request for every connection.
func (s *tokenSource) refuse(user string, t *token) {
	const free = 3
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.refusals[user]
	if r == nil {
		r = &refusals{}
		s.refusals[user] = r
		s.troubled.Add(1)
	}
	if r.last != t { // else another connection with the same token was here first
		r.last = t
		if r.count++; r.count > free {
			r.resume = wall(s.now()).Add(backoff(r.count - free - 1))
		}
	}
	// A clock that was set back must not make the pause longer than it was.
	pausing := s.now().Before(r.resume) && r.resume.Sub(s.now()) <= backoff(math.MaxInt)
	if current := s.current.Load(); current != nil && current.value == t.value && !pausing {
		s.current.Store(nil)
	}
}

// accept takes down that the server let user in with t. If another host or
// another user's refusal had it dropped, it is put back.
func (s *tokenSource) accept(user string, t *token) {
	if s.troubled.Load() == 0 && s.current.Load() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusals[user] != nil {
		delete(s.refusals, user)
		s.troubled.Add(-1)
	}
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
}

func (s *tokenSource) failed(err error) error {
	var username *UsernameError
	if errors.As(err, &username) || errors.Is(err, errClosed) {
		return err
	}
	return &TokenError{Credential: s.name, Scope: s.scope, Err: err}
}
