package entrapg

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg/internal/claims"
)

const (
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
	user    claims.Name // that it is for; empty where nobody asked yet
	userErr error       // why there is no such user
}

// userKnown reports whether it is known whom the token is for, or that it is for
// nobody.
func (t *token) userKnown() bool { return t.user.Role != "" || t.userErr != nil }

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

// backoff is the pause after so many attempts in vain: a second, two, four, up to a minute.
func backoff(tries int) time.Duration { return min(time.Second<<min(tries, 6), time.Minute) }

// postponed returns t with the next attempt to replace it put off, for longer
// each time.
func (t *token) postponed(now time.Time, tries int) *token {
	later := *t
	pause := backoff(tries)
	later.refresh = wall(now).Add(pause/2 + rand.N(pause/2))
	if later.refresh.After(t.expires) {
		later.refresh = t.expires
	}
	later.tries = tries + 1
	return &later
}

// wall strips the monotonic reading, which Before would prefer.
func wall(t time.Time) time.Time { return t.Round(0) }
