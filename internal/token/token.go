package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// MaxLen is the length in bytes of the longest token that fits in a PostgreSQL
// password message. PG_MAX_AUTH_TOKEN_LENGTH, 65,535 bytes, includes the
// length word and the terminating NUL.
const MaxLen = 65535 - 4 - 1

// refreshMargin is how long before its expiry a token is refreshed, unless the
// credential sets RefreshOn or the token's lifetime is too short for it.
const refreshMargin = 5 * time.Minute

// A Token is an immutable access token. Its times are wall-clock times without
// a monotonic reading, because the monotonic clock stops while a laptop sleeps.
type Token struct {
	// Secret returns the access token itself. It is a closure so that no dump of a
	// Token shows the secret.
	Secret func() string
	// Expires is when servers stop accepting the token.
	Expires time.Time

	refresh time.Time // when to fetch the next one; never after Expires
	serial  uint64    // increases with each new token
}

// newToken validates a token that a credential returned. It need not be a JSON Web
// Token.
func newToken(access azcore.AccessToken, now time.Time) (*Token, error) {
	now = wall(now)
	expires := wall(access.ExpiresOn)
	switch {
	case access.Token == "":
		return nil, errors.New("the credential returned an empty token")
	case len(access.Token) > MaxLen:
		return nil, fmt.Errorf("the credential returned a token of %d bytes; PostgreSQL accepts at most %d",
			len(access.Token), MaxLen)
	case access.ExpiresOn.IsZero():
		return nil, errors.New("the credential returned a token without ExpiresOn")
	case !now.Before(expires):
		return nil, fmt.Errorf(
			"the credential returned a token that expired at %s; check this machine's clock and the credential's cache",
			expires.UTC().Format(time.RFC3339))
	}
	for _, b := range []byte(access.Token) {
		if b <= ' ' || b >= 0x7f || b == '"' || b == '\'' {
			return nil, errors.New(
				"the credential returned a malformed token: it contains white space, quotes or non-ASCII characters")
		}
	}
	t := &Token{Expires: expires, Secret: func() string { return access.Token }}
	t.refresh = expires.Add(-min(refreshMargin, expires.Sub(now)/4))
	if on := wall(access.RefreshOn); on.After(now) && on.Before(expires) {
		t.refresh = on
	}
	return t, nil
}

// wall strips the monotonic reading, which Before would otherwise prefer.
func wall(t time.Time) time.Time { return t.Round(0) }
