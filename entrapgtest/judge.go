package entrapgtest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// clockSkew is how far Entra's clock may be ahead, as in Microsoft's own libraries.
const clockSkew = 5 * time.Minute

// A judge decides about logins, as Azure Database for PostgreSQL does.
type judge struct {
	tokens   *tokenService
	audience string
}

// check checks a login as role with a password. It returns nil if the password is a valid
// token for the role.
func (j judge) check(role string, m mapping, password string) *rejection {
	claims, rejected := j.verify(password)
	if rejected == nil {
		rejected = j.checkClaims(claims)
	}
	if rejected == nil {
		rejected = m.check(role, claims)
	}
	return rejected
}

// verify returns the claims of a token that the tenant has signed.
func (j judge) verify(password string) (jwt.MapClaims, *rejection) {
	if strings.Count(password, ".") != 2 {
		if strings.Contains(password, "eyJ") {
			return nil, malformed("the token is truncated or altered")
		}
		return nil, invalid("the password is not a token")
	}
	if strings.ContainsAny(password, "\"' \t\r\n\x00") {
		return nil, malformed("the token contains quotes, white space or NUL")
	}
	claims, err := j.tokens.verify(password)
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, malformed(err.Error())
	case err != nil:
		return nil, invalid(err.Error())
	}
	return claims, nil
}

// checkClaims checks that the server accepts the token for some role.
func (j judge) checkClaims(claims jwt.MapClaims) *rejection {
	if exp, ok := exactTime(claims["exp"]); !ok || !time.Now().Before(exp) {
		return &rejection{
			code: invalidAuthorization, reason: "the token has expired",
			message: "The access token has expired. Acquire a new token and try again.",
		}
	}
	if claims["aud"] != j.audience {
		return &rejection{
			code: invalidAuthorization, reason: fmt.Sprintf("the token is for %v", claims["aud"]),
			message: fmt.Sprintf("The access token does not have a valid audience claim. Please acquire a new "+
				"token for the resource %q.", j.audience),
		}
	}
	// Azure's messages for these are not publicly known.
	nbf, dated := exactTime(claims["nbf"])
	switch {
	case claims["tid"] != j.tokens.tenantID:
		return invalid("the token is of another tenant")
	case !slices.Contains(j.tokens.issuers(), claims["iss"]):
		return invalid(fmt.Sprintf("the token is issued by %v", claims["iss"]))
	case claims["nbf"] != nil && (!dated || time.Now().Before(nbf.Add(-clockSkew))):
		return invalid("the token is not valid yet")
	}
	if oid, _ := claims["oid"].(string); oid == "" {
		return &rejection{
			code: invalidAuthorization, reason: "the token has no oid",
			message: "The access token doesn't have a valid oid claim. Acquire a new token and try again",
		}
	}
	return nil
}

// exactTime parses a numericDate with its fraction, which jwt truncates. It returns
// false for a value that is not a number or is out of range: how a number that is too
// large for int64 is converted depends on the processor.
func exactTime(v any) (time.Time, bool) {
	const latest = 253402300799 // the last second of the year 9999
	seconds, ok := v.(float64)
	if !ok || !(math.Abs(seconds) <= latest) {
		return time.Time{}, false
	}
	return time.UnixMicro(int64(seconds * 1e6)), true
}
