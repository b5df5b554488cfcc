package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// newerThanNow is a claims challenge. It makes credentials that cache tokens
// request a new one. Without it, MSAL returns the rejected token until shortly
// before it expires, for up to a day.
const newerThanNow = `{"access_token":{"nbf":{"essential":true,"value":"NOW"}}}`

// DefaultTimeout bounds one call to a credential.
const DefaultTimeout = 30 * time.Second

const (
	// freeRenewals is how many rejected tokens in a row are replaced without a delay.
	freeRenewals = 3

	// maxRenewals is the number of replacements within an hour after which they are a
	// minute apart, even if each new token is accepted.
	maxRenewals = 500

	// maxRetryAfter bounds a Retry-After header.
	maxRetryAfter = 5 * time.Minute
)

var (
	// ErrClosed is returned after the source or the caller was closed.
	ErrClosed = errors.New("token source closed")

	// ErrNoOther is returned by Replace if the credential keeps its token.
	ErrNoOther = errors.New("the credential has no other token")

	// ErrRateLimited is returned by Replace if too many tokens were rejected.
	ErrRateLimited = errors.New("too many tokens were rejected")
)

// A Source caches one credential's current token for one scope. Its methods are
// safe for concurrent use. It runs no goroutine except a call in flight.
type Source struct {
	// Scope is the scope of the tokens.
	Scope string
	// Credential returns the credential. An error counts as a failed call.
	Credential func() (azcore.TokenCredential, error)
	// Timeout bounds one call, which outlives the caller that started it. Zero
	// means DefaultTimeout.
	Timeout time.Duration
	// RetryAfter, if not nil, returns the delay that the error of a call requests.
	RetryAfter func(error) time.Duration
	// Now, if not nil, replaces time.Now.
	Now func() time.Time

	current            atomic.Pointer[Token]
	rejected           atomic.Bool // the current token was rejected for at least one key
	requests, failures atomic.Int64

	mu       sync.Mutex // guards the following and writes to current; never held during I/O
	inflight *call
	closed   bool
	serial   uint64  // of the newest token
	lastErr  error   // of the last call, nil if it succeeded
	refresh  backoff // after calls that did not replace a usable token
	failure  backoff // after calls that failed while callers waited for a token
	renewal  backoff // after tokens that were replaced because they were rejected
	renewals int     // in the current hour
	hour     time.Time
	outcomes outcomes // by key
}

// A Request identifies a caller of a Source.
type Request struct {
	// Key is comparable. Tokens are accepted or rejected for each key independently;
	// package entrapg uses the servers and the user.
	Key any
	// Closed ends the wait when it is closed.
	Closed <-chan struct{}
	// Log receives the outcome of a call that this request starts.
	Log *slog.Logger
}

// Fresh returns the current token if it needs no refresh and was not rejected
// for key. Otherwise it returns nil. It costs one clock reading and two atomic
// loads, unless the current token was rejected for some key.
func (s *Source) Fresh(key any) *Token {
	t := s.current.Load()
	if t == nil || !s.now().Before(t.refresh) || s.rejected.Load() && s.isRejected(key, t) {
		return nil
	}
	return t
}

// Get returns a token that has not expired. If the current token was rejected for
// the key, Get returns another one if the credential has one. fetched reports
// whether the token is newly fetched; if it is rejected too, the caller need not
// try another one. Get does not block while a usable token is cached. Otherwise it
// returns when the call in flight completes, ctx is done or the caller is closed.
func (s *Source) Get(ctx context.Context, r Request) (t *Token, fetched bool, err error) {
	t, fetched, err = s.get(ctx, r)
	if err != nil || !s.isRejected(r.Key, t) {
		return t, fetched, err
	}
	switch other, err := s.Replace(ctx, r, t); {
	case err == nil:
		return other, true, nil
	case errors.Is(err, ErrClosed) || ctx.Err() != nil:
		return nil, false, err
	}
	return t, false, nil // the server may accept it by now
}

// get is like Get, but ignores rejections.
func (s *Source) get(ctx context.Context, r Request) (t *Token, fetched bool, err error) {
	for {
		t, now := s.current.Load(), s.now()
		if t != nil && now.Before(t.refresh) {
			return t, false, nil
		}
		if ctx.Err() != nil {
			return nil, false, contextError(ctx)
		}
		c, err := s.start(ctx, r, t, false)
		switch {
		case usable(t, now):
			return t, false, nil
		case err != nil:
			return nil, false, err
		case c != nil: // otherwise another call completed since t was loaded
			t, err := c.wait(ctx, r)
			return t, true, err
		}
	}
}

// Replace returns a current token other than t, which was rejected for the key.
// It returns an error if the credential fails or has no other token, or if too many
// tokens were replaced already.
func (s *Source) Replace(ctx context.Context, r Request, t *Token) (*Token, error) {
	for {
		current := s.current.Load()
		if current != nil && current.serial != t.serial && s.now().Before(current.Expires) && !s.isRejected(r.Key, current) {
			return current, nil
		}
		if ctx.Err() != nil {
			return nil, contextError(ctx)
		}
		c, err := s.start(ctx, r, current, true)
		switch {
		case err != nil:
			return nil, err
		case c == nil: // another call completed since current was loaded
			continue
		}
		other, err := c.wait(ctx, r)
		switch {
		case err != nil:
			return nil, err
		case !c.other: // a refresh that may have begun before t was rejected
		case current != nil && other.serial == current.serial:
			return nil, fmt.Errorf("%w; it returned the same one, which expires at %s",
				ErrNoOther, other.Expires.UTC().Format(time.RFC3339))
		default:
			return other, nil
		}
	}
}

// start returns the call in flight, or starts one. It returns nil if seen is not the
// current token any more, and an error if it is too early for another call.
func (s *Source) start(ctx context.Context, r Request, seen *Token, other bool) (*call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.inflight != nil:
		return s.inflight, nil
	case s.current.Load() != seen:
		return nil, nil
	}
	now := s.now()
	if err := s.tooEarly(now, seen, other); err != nil {
		return nil, err
	}
	if other {
		if err := s.renew(now, r.Key); err != nil {
			return nil, err
		}
	}
	timeout := cmp.Or(s.Timeout, DefaultTimeout)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	c := &call{other: other, log: r.Log, cancel: cancel, done: make(chan struct{})}
	s.inflight = c
	// A credential that ignores its context must not block callers.
	stop := context.AfterFunc(ctx, func() { s.finish(c, nil, NoAnswer(timeout)) })
	go func() {
		t, err := (*Token)(nil), errors.New("the credential called runtime.Goexit")
		defer func() {
			if p := recover(); p != nil {
				t, err = nil, redact(fmt.Errorf("the credential panicked: %v", p))
			}
			stop()
			s.finish(c, t, err)
		}()
		t, err = s.fetch(ctx, other)
	}()
	return c, nil
}

// renew counts a token that is replaced because it was rejected for key, or
// returns an error if it is too early. A token that was accepted for key before
// was probably revoked, and is replaced without a delay. The caller holds mu.
func (s *Source) renew(now time.Time, key any) error {
	if sinceHour := wall(now).Sub(s.hour); sinceHour < 0 || sinceHour >= time.Hour {
		s.hour, s.renewals = wall(now), 0
	}
	if left := s.renewal.left(now); left > 0 && (!s.outcomes.revoked(key) || s.renewals >= maxRenewals) {
		return fmt.Errorf("%w; next attempt in %v", ErrRateLimited, left.Round(time.Millisecond))
	}
	s.renewals++
	length := renewalBackoff(s.renewal.attempts + 1)
	if s.renewals >= maxRenewals {
		length = time.Minute
	}
	s.renewal.extend(now, length)
	return nil
}

// tooEarly returns the last error if it is too early for another call. A call
// that refreshes a usable token can wait longer than the others. The caller
// holds mu.
func (s *Source) tooEarly(now time.Time, current *Token, other bool) error {
	p := &s.failure
	if usable(current, now) && !other {
		p = &s.refresh
	}
	left := p.left(now)
	switch {
	case left == 0:
		return nil
	case s.lastErr != nil:
		return fmt.Errorf("%w; next attempt in %v", s.lastErr, left.Round(time.Millisecond))
	}
	return ErrNoOther // a refresh returned the same token; get ignores this error
}

func usable(t *Token, now time.Time) bool { return t != nil && now.Before(t.Expires) }

// NoAnswer returns the error of a call that took longer than timeout. It is a
// context.DeadlineExceeded.
func NoAnswer(timeout time.Duration) error {
	return fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded)
}

// fetch calls the credential. If other is true, it sends a claims challenge. If that
// fails, it repeats the call without it, because credentials that run a developer tool
// do not support claims.
func (s *Source) fetch(ctx context.Context, other bool) (*Token, error) {
	credential, err := s.Credential()
	if err != nil {
		return nil, redact(err)
	}
	options := policy.TokenRequestOptions{Scopes: []string{s.Scope}}
	if other {
		options.Claims = newerThanNow
		if t, err := s.request(ctx, credential, options); err == nil || ctx.Err() != nil {
			return t, err
		}
		s.failures.Add(1)
		options.Claims = ""
	}
	return s.request(ctx, credential, options)
}

func (s *Source) request(
	ctx context.Context, credential azcore.TokenCredential, options policy.TokenRequestOptions,
) (*Token, error) {
	s.requests.Add(1)
	access, err := credential.GetToken(ctx, options)
	if err != nil {
		secrets := []string{access.Token}
		if current := s.current.Load(); current != nil {
			secrets = append(secrets, current.Secret())
		}
		return nil, redact(err, secrets...)
	}
	return newToken(access, s.now())
}

// finish completes c with its token or error, once. The token of a call that
// timed out is still cached.
func (s *Source) finish(c *call, t *Token, err error) {
	defer c.cancel()
	s.mu.Lock()
	old, now := s.current.Load(), s.now()
	late := s.inflight != c
	if s.closed || late && (t == nil || old != nil && !t.Expires.After(old.Expires)) {
		s.mu.Unlock()
		return
	}
	switch {
	case err != nil:
		s.failures.Add(1)
		s.lastErr = err
		s.backOffAfter(c, err, now)
	case usable(old, now) && t.Secret() == old.Secret(): // the credential's own cache is not ready to replace it
		t = old
		s.lastErr, s.failure = nil, backoff{}
		s.postpone(now, old)
	default:
		s.serial++
		t.serial = s.serial
		s.current.Store(t)
		s.rejected.Store(false)
		s.lastErr, s.refresh, s.failure = nil, backoff{}, backoff{}
	}
	if !late {
		s.complete(c, t, err)
	}
	s.mu.Unlock()

	// Log after unlocking, because a slog.Handler may itself need a token.
	switch {
	case late:
	case err == nil:
		c.log.Debug("entrapg: fetched a token", "scope", s.Scope, "expires", t.Expires)
	case usable(old, now) && !c.other: // otherwise the caller gets the error
		c.log.Warn("entrapg: token refresh failed, the current token remains in use", "error", err, "expires", old.Expires)
	}
}

// complete sets the result of the call in flight. The caller holds mu.
func (s *Source) complete(c *call, t *Token, err error) {
	c.token, c.err = t, err
	s.inflight = nil
	close(c.done)
}

// backOffAfter sets the backoff after a failed call. The caller holds mu.
func (s *Source) backOffAfter(c *call, err error, now time.Time) {
	if s.RetryAfter != nil {
		if after := min(s.RetryAfter(err), maxRetryAfter); after > 0 {
			s.refresh.set(now, after)
			s.failure.set(now, after)
			return
		}
	}
	if current := s.current.Load(); usable(current, now) && !c.other {
		s.postpone(now, current)
	} else {
		s.failure.extend(now, failureBackoff(s.failure.attempts+1))
	}
}

// postpone backs off after a call that did not replace current, for 1 s, 2 s and
// so on to a minute, but at most until current expires. The caller holds mu.
func (s *Source) postpone(now time.Time, current *Token) {
	s.refresh.extend(now, doubled(time.Second, s.refresh.attempts, time.Minute))
	if s.refresh.until.After(current.Expires) {
		s.refresh.until = current.Expires
	}
}

// failureBackoff returns the longest backoff after n calls in a row that failed while
// callers waited for a token: none, 0.5 s, 1 s and so on to 15 s. The limit is low
// because a user may fix the cause at any time, for example with az login.
func failureBackoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return doubled(500*time.Millisecond, n-2, 15*time.Second)
}

// renewalBackoff returns the longest backoff after the nth token in a row that was
// replaced because it was rejected: none after the first two, then 1 s, 2 s and
// so on to a minute.
func renewalBackoff(n int) time.Duration {
	if n < freeRenewals {
		return 0
	}
	return doubled(time.Second, n-freeRenewals, time.Minute)
}

func (s *Source) isRejected(key any, t *Token) bool {
	if !s.rejected.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcomes.rejected(key, t.serial)
}

// Reject records that t was rejected for key. The token remains current for all
// other keys.
func (s *Source) Reject(key any, t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes.record(key, t.serial, false)
	if current := s.current.Load(); current != nil && current.serial == t.serial {
		s.rejected.Store(true)
	}
}

// Accept records that t was accepted for key. If an earlier token was rejected for
// key, the replacement helped, and the backoff between replacements ends.
func (s *Source) Accept(key any, t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.outcomes.record(key, t.serial, true)
	if !before.accepted && before.serial != 0 && before.serial < t.serial && s.renewals < maxRenewals {
		s.renewal = backoff{}
	}
}

// Forget drops the current token.
func (s *Source) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(nil)
}

// Close drops the token and ends the call in flight. After Close, Get and Replace
// return ErrClosed.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.current.Store(nil)
	s.outcomes = nil
	c := s.inflight
	if c != nil {
		s.complete(c, nil, ErrClosed)
	}
	s.mu.Unlock()
	if c != nil {
		c.cancel()
	}
}

// Stats returns how many calls were made, how many failed, and the current
// token, which is nil if there is none.
func (s *Source) Stats() (requests, failures int64, current *Token) {
	return s.requests.Load(), s.failures.Load(), s.current.Load()
}

func (s *Source) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// contextError returns the reason that ctx is done: its error, and its cause if that
// differs.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) || errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
