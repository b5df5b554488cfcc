package entrapg

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/token"
)

const (
	// requestTimeout bounds one token request, and the time for which one Connect waits
	// for tokens in total. While a metadata endpoint answers that it is unavailable,
	// the limit is imds.MaxWait.
	requestTimeout = token.DefaultTimeout

	// interactiveTimeout is the limit for credentials that require a user's interaction.
	interactiveTimeout = 5 * time.Minute
)

// An identity is a credential with its cached token for the database and the
// PostgreSQL user of that token. Connectors share identities.
type identity struct {
	credential *credentialSource
	tokens     *token.Source
	users      *userCache

	key  identityKey
	refs int // guarded by the mutex of its registry
}

// An identityKey distinguishes identities.
type identityKey struct {
	credential any // comparable; nil if it is not shared
	scope      string
	management string // scope of tokens for Azure Resource Manager
}

func newIdentity(key identityKey, credential *credentialSource) *identity {
	source := func(scope string, timeout time.Duration) *token.Source {
		return &token.Source{Scope: scope, Credential: credential.get, Timeout: timeout, RetryAfter: retryAfter}
	}
	i := &identity{key: key, credential: credential, tokens: source(key.scope, credential.timeout)}
	i.users = &userCache{management: source(key.management, lookupTimeout), tokenError: i.tokenError}
	return i
}

// get returns a token and the user to log in as. See [token.Source.Get].
func (i *identity) get(
	ctx context.Context, r token.Request, user string,
) (t *token.Token, _ string, fetched bool, err error) {
	if t, fetched, err = i.tokens.Get(ctx, r); err != nil {
		return nil, "", false, i.tokenError(i.key.scope, err)
	}
	user, err = i.user(ctx, r, user, t)
	return t, user, fetched, err
}

// replacement is like get, for a token other than one that was rejected.
func (i *identity) replacement(
	ctx context.Context, r token.Request, rejected *token.Token, user string,
) (*token.Token, string, error) {
	t, err := i.tokens.Replace(ctx, r, rejected)
	switch {
	case errors.Is(err, token.ErrNoOther), errors.Is(err, token.ErrRateLimited):
		return nil, "", err // the credential has not failed
	case err != nil:
		return nil, "", i.tokenError(i.key.scope, err)
	}
	user, err = i.user(ctx, r, user, t)
	return t, user, err
}

// user returns the user to log in as: set or, if that is empty, the user of t.
func (i *identity) user(ctx context.Context, r token.Request, set string, t *token.Token) (string, error) {
	if set != "" {
		return set, nil
	}
	name, err := i.users.resolve(ctx, r, t)
	return name.Role, err
}

// fresh returns the cached token and the user, or nil if get could block. It does
// not allocate.
func (i *identity) fresh(key any, user string) (*token.Token, string) {
	t := i.tokens.Fresh(key)
	if t != nil && user == "" {
		user = i.users.cached(t).Role
	}
	if user == "" {
		return nil, ""
	}
	return t, user
}

// tokenError converts an error of a token source to ErrClosed or a TokenError.
func (i *identity) tokenError(scope string, err error) error {
	if errors.Is(err, token.ErrClosed) {
		return ErrClosed
	}
	if progress := i.credential.progress(); progress != "" && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; %s", err, progress)
	}
	hint := credfail.Classify(err, i.credential.settings).Hint
	return &TokenError{Credential: i.credential.name, Scope: scope, Hint: hint, Err: err}
}

// report sets the fields of stats that concern tokens.
func (i *identity) report(stats *Stats, open bool) {
	requests, failures, current := i.tokens.Stats()
	lookups, failedLookups, _ := i.users.management.Stats()
	stats.TokenRequests, stats.TokenFailures = requests+lookups, failures+failedLookups
	if current == nil || !open {
		return
	}
	stats.TokenExpiry = current.Expires
	if stats.User == "" {
		stats.User = i.users.cached(current).Role
	}
}

func (i *identity) close() {
	i.tokens.Close()
	i.users.management.Close()
}

// A registry holds the identities in use. The zero value is empty.
type registry struct {
	mu         sync.Mutex // guards the following, and refs of each identity
	identities map[identityKey]*identity
}

// acquire returns the identity for key and creates it if there is none. The
// caller must release it.
func (r *registry) acquire(key identityKey, credential *credentialSource) *identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.identities[key]
	if i == nil {
		i = newIdentity(key, credential)
		if key.credential != nil {
			if r.identities == nil {
				r.identities = map[identityKey]*identity{}
			}
			r.identities[key] = i
		}
	}
	i.refs++
	return i
}

// release undoes one acquire. The last one closes the identity.
func (r *registry) release(i *identity) {
	r.mu.Lock()
	i.refs--
	last := i.refs == 0
	if last && i.key.credential != nil {
		delete(r.identities, i.key)
	}
	r.mu.Unlock()
	if last {
		i.close()
	}
}
