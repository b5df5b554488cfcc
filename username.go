package entrapg

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/token"
)

const (
	// lookupTimeout bounds a request for a token for Azure Resource Manager. A login
	// can succeed without it.
	lookupTimeout = 10 * time.Second

	// lookupRetry is how long the application's name is used after such a request
	// failed.
	lookupRetry = time.Minute
)

// A userCache derives PostgreSQL users from an identity's tokens. Most tokens contain
// the name of their user. For the others, it requests one token for Azure Resource
// Manager and keeps the name that it contains.
type userCache struct {
	management *token.Source
	tokenError func(scope string, err error) error // wraps an error of management

	last atomic.Pointer[resolvedUser]

	mu        sync.Mutex  // guards the following
	principal string      // the principal that was looked up
	name      claims.Name // its name
}

// A resolvedUser is the user of one token, or the reason that it has none.
type resolvedUser struct {
	token  *token.Token
	name   claims.Name
	err    error
	lookup error     // if not nil, the lookup of the identity's name failed, and name is the application's
	until  time.Time // when to look it up again; zero for never
}

// load returns the user of t if it is known already, or nil.
func (u *userCache) load(t *token.Token) *resolvedUser {
	last := u.last.Load()
	if last == nil || last.token != t || !last.until.IsZero() && !time.Now().Before(last.until) {
		return nil
	}
	return last
}

// cached returns the user of t if it is known already.
func (u *userCache) cached(t *token.Token) claims.Name {
	if known := u.load(t); known != nil {
		return known.name
	}
	return claims.Name{}
}

// failure returns the error of the lookup for t if it failed and user is therefore the
// application's name. Otherwise, or if another token was resolved since, it returns nil.
func (u *userCache) failure(t *token.Token, user string) *TokenError {
	last := u.last.Load()
	if last == nil || last.token != t || last.name.Role != user {
		return nil
	}
	failed, _ := errors.AsType[*TokenError](last.lookup)
	return failed
}

// resolve returns the user of t. Its error is a UsernameError, ErrClosed, or a
// TokenError if ctx is done.
func (u *userCache) resolve(ctx context.Context, r token.Request, t *token.Token) (claims.Name, error) {
	if known := u.load(t); known != nil {
		return known.name, known.err
	}
	c, err := claims.Parse(t.Secret())
	if err != nil {
		return u.store(
			&resolvedUser{token: t, err: &UsernameError{Problem: err.Error() + ", so no user can be derived from it"}})
	}
	if name := c.RoleName(); name.Role != "" {
		return u.store(&resolvedUser{token: t, name: name})
	}
	name, lookupErr := u.lookUp(ctx, r, c.Principal())
	if lookupErr != nil && (ctx.Err() != nil || errors.Is(lookupErr, ErrClosed)) {
		return claims.Name{}, lookupErr
	}
	switch {
	case name.Role != "":
	case c.Guest():
		err = &UsernameError{Problem: claims.GuestRole, Claims: c.Keys(), Err: lookupErr}
	default:
		if name = c.ApplicationName(); name.Role == "" {
			err = &UsernameError{Problem: "no claim of the token identifies one", Claims: c.Keys(), Err: lookupErr}
		}
	}
	switch {
	case lookupErr == nil:
		return u.store(&resolvedUser{token: t, name: name, err: err})
	case err == nil:
		logLater(r.Log, "entrapg: no token for Azure Resource Manager to derive the user from", "error", lookupErr)
		return u.store(&resolvedUser{token: t, name: name, lookup: lookupErr, until: time.Now().Add(lookupRetry)})
	}
	return name, err // not cached: the lookup can succeed later
}

// store caches the result of resolve, and returns it.
func (u *userCache) store(r *resolvedUser) (claims.Name, error) {
	u.last.Store(r)
	return r.name, r.err
}

// lookUp returns the name of a principal, from a token for Azure Resource Manager.
// It returns no name if the token contains none or is for another principal.
func (u *userCache) lookUp(ctx context.Context, r token.Request, principal string) (claims.Name, error) {
	u.mu.Lock()
	known, name := principal != "" && principal == u.principal, u.name
	u.mu.Unlock()
	if known {
		return name, nil
	}
	t, _, err := u.management.Get(ctx, r)
	if err != nil {
		return claims.Name{}, u.tokenError(u.management.Scope, err)
	}
	name = claims.Name{}
	if c, err := claims.Parse(t.Secret()); err == nil && principal != "" && c.Principal() == principal {
		if name = c.RoleName(); name.Role != "" {
			name.Claim += " of a token for Azure Resource Manager"
		}
	}
	u.mu.Lock()
	u.principal, u.name = principal, name
	u.mu.Unlock()
	u.management.Forget() // do not keep a token that can manage Azure resources
	return name, nil
}
