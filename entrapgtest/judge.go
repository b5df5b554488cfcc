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

// A rejection is an error with which the server ends a login, and why.
type rejection struct {
	code, message, hint string
	reason              string // for the record of logins
	response            []byte // PostgreSQL's own error; nil if the front rejects the login
}

// Azure's messages. The SQLSTATEs for an expired token, a wrong audience and a wrong
// format are not publicly known; 28000 is used for all of them.
const (
	invalidAuthorization = "28000"
	invalidPassword      = "28P01"
)

// clockSkew is how far Entra's clock may be ahead, as in Microsoft's own libraries.
const clockSkew = 5 * time.Minute

// judge checks a login as role with a password, as Azure Database for PostgreSQL does.
// It returns nil if the password is a valid token for the role.
func (s *Server) judge(role string, m mapping, password string) *rejection {
	if strings.Count(password, ".") != 2 {
		if strings.Contains(password, "eyJ") {
			return malformed("the token is truncated or altered")
		}
		return invalid("the password is not a token")
	}
	if strings.ContainsAny(password, "\"' \t\r\n\x00") {
		return malformed("the token contains quotes, white space or NUL")
	}
	claims, err := s.Tenant.tokens.verify(password)
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return malformed(err.Error())
	case err != nil:
		return invalid(err.Error())
	}

	if exp, ok := exactTime(claims["exp"]); !ok || !time.Now().Before(exp) {
		return &rejection{
			code: invalidAuthorization, reason: "the token has expired",
			message: "The access token has expired. Acquire a new token and try again.",
		}
	}
	if claims["aud"] != s.config.Audience {
		return &rejection{
			code: invalidAuthorization, reason: fmt.Sprintf("the token is for %v", claims["aud"]),
			message: fmt.Sprintf("The access token does not have a valid audience claim. Please acquire a new "+
				"token for the resource %q.", s.config.Audience),
		}
	}
	// Azure's messages for these are not publicly known.
	nbf, dated := exactTime(claims["nbf"])
	switch {
	case claims["tid"] != s.Tenant.ID:
		return invalid("the token is of another tenant")
	case !slices.Contains(s.Tenant.tokens.issuers(), claims["iss"]):
		return invalid(fmt.Sprintf("the token is issued by %v", claims["iss"]))
	case claims["nbf"] != nil && (!dated || time.Now().Before(nbf.Add(-clockSkew))):
		return invalid("the token is not valid yet")
	}
	oid, _ := claims["oid"].(string)
	if oid == "" {
		return &rejection{
			code: invalidAuthorization, reason: "the token has no oid",
			message: "The access token doesn't have a valid oid claim. Acquire a new token and try again",
		}
	}

	isApp := claims["idtyp"] == "app"
	appid, _ := claims["appid"].(string)
	groups, _ := claims["groups"].([]any)
	methods, _ := claims["amr"].([]any)
	switch {
	case m.mfa && !slices.Contains(methods, any("mfa")):
		return invalid("the role has isMfa, and the token's claim amr does not contain mfa") // Azure's message is unknown
	case m.objectType == "group" && !slices.Contains(groups, any(m.objectID)):
		return &rejection{
			code: invalidAuthorization, reason: "the token's user or application is not a member of the group",
			message: fmt.Sprintf("Azure AD access token not valid for role %s (does not contain group ID %s)", role, m.objectID),
			hint:    "Did you specify the correct user name and access token?",
		}
	case m.objectType == "group":
		return nil
	case m.objectType == "user" && isApp:
		return &rejection{
			code: invalidAuthorization, reason: "the token is an application's, and the role is mapped to a user",
			message: fmt.Sprintf("Azure AD user token for role[%s] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an "+
				"AAD_AUTH_TOKENTYPE_APP_OBO token.", role),
		}
	case m.objectType == "service" && !isApp:
		return &rejection{
			code: invalidAuthorization, reason: "the token is a user's, and the role is mapped to an application",
			message: fmt.Sprintf("Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[%s]", role),
		}
	case m.objectType == "service" && !strings.EqualFold(oid, m.objectID) && !strings.EqualFold(appid, m.objectID):
		// The label of a service contains its object ID or its application ID.
		return &rejection{
			code: invalidAuthorization, reason: "the role is mapped to another principal",
			message: fmt.Sprintf("Service principal oid mismatch for role %q. The oid in the security label [%s] does not "+
				"match the appid [%s] or oid [%s] in the token.", role, m.objectID, appid, oid),
		}
	case m.objectType == "user" && !strings.EqualFold(oid, m.objectID):
		return &rejection{
			code: invalidPassword, reason: "the role is mapped to another principal",
			message: fmt.Sprintf("password authentication failed for user %q", role),
		}
	}
	return nil
}

func invalid(reason string) *rejection {
	return &rejection{
		code: invalidAuthorization, reason: reason,
		message: "An error occurred while validating the access token. Please acquire a new token and retry",
	}
}

func malformed(reason string) *rejection {
	return &rejection{
		code: invalidAuthorization, reason: reason,
		message: "The access token has invalid format. Please ensure the token is passed exactly as returned by " +
			"the authentication endpoint and retry.",
	}
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
