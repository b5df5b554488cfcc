package entrapg

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/token"
)

// lookupTimeout bounds the wait for a token for Azure Resource Manager, which a
// login may do without.
const lookupTimeout = 10 * time.Second

// A userCache derives PostgreSQL users from an identity's tokens. Most tokens
// name their user. For the others, it requests one token for Azure Resource
// Manager and remembers the name.
type userCache struct {
	management *token.Source
	failed     func(error) error // wraps an error of management

	last atomic.Pointer[resolvedUser]

	mu       sync.Mutex // guards the following
	identity string     // whose name was looked up
	name     claims.Name
}

// A resolvedUser is the user of one token, or why there is none.
type resolvedUser struct {
	token *token.Token
	name  claims.Name
	err   error
}

// cached returns the user of t if it is known already.
func (u *userCache) cached(t *token.Token) claims.Name {
	if last := u.last.Load(); last != nil && last.token == t {
		return last.name
	}
	return claims.Name{}
}

// resolve returns the user of t. Its errors are a UsernameError, a TokenError if
// ctx was done, and ErrClosed.
func (u *userCache) resolve(ctx context.Context, r token.Request, t *token.Token) (claims.Name, error) {
	if last := u.last.Load(); last != nil && last.token == t {
		return last.name, last.err
	}
	name, err, final := u.derive(ctx, r, t)
	if final {
		u.last.Store(&resolvedUser{t, name, err})
	}
	return name, err
}

// derive does the work of resolve. final reports that it would not be different
// another time.
func (u *userCache) derive(ctx context.Context, r token.Request, t *token.Token) (_ claims.Name, _ error, final bool) { //nolint:revive // final qualifies the error
	c, err := claims.Parse(t.Secret())
	if err != nil {
		return claims.Name{}, &UsernameError{Problem: err.Error() + ", so no user can be derived from it"}, true
	}
	if name := c.RoleName(); name.Role != "" {
		return name, nil, true
	}
	name, lookupErr := u.lookUp(ctx, r, c.Identity())
	if ctx.Err() != nil || errors.Is(lookupErr, ErrClosed) {
		return name, lookupErr, false
	}
	if lookupErr != nil {
		logLater(r.Log, "entrapg: no token for Azure Resource Manager to derive the user from", "error", lookupErr)
	}
	if name.Role == "" {
		name = c.ApplicationName()
	}
	if name.Role == "" {
		err = &UsernameError{Problem: "no claim of the token names one", Claims: c.Keys(), Err: lookupErr}
	}
	return name, err, lookupErr == nil
}

// lookUp returns the name that a token for Azure Resource Manager gives an
// identity. It returns no name if the token has none or is for another identity.
func (u *userCache) lookUp(ctx context.Context, r token.Request, identity string) (claims.Name, error) {
	u.mu.Lock()
	known, name := identity != "" && identity == u.identity, u.name
	u.mu.Unlock()
	if known {
		return name, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookupTimeout, token.NoAnswer(lookupTimeout))
	defer cancel()
	t, _, err := u.management.Get(ctx, r)
	if err != nil {
		return claims.Name{}, u.failed(err)
	}
	name = claims.Name{}
	if c, err := claims.Parse(t.Secret()); err == nil && identity != "" && c.Identity() == identity {
		if name = c.RoleName(); name.Role != "" {
			name.Claim += " of a token for Azure Resource Manager"
		}
	}
	u.mu.Lock()
	u.identity, u.name = identity, name
	u.mu.Unlock()
	u.management.Forget() // it opens more than the database
	return name, nil
}

// logLater writes a warning without making the caller wait: a slog.Handler may
// itself need a connection.
func logLater(log *slog.Logger, message string, args ...any) { go log.Warn(message, args...) }
