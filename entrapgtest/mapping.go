package entrapgtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// A mapping maps a role to a principal.
type mapping struct {
	objectID   string
	objectType string // user, group or service
	admin      bool   // an Entra administrator, or a member of an administrator's role
	mfa        bool   // the token must show that the user passed multifactor authentication
}

// check checks that a valid token belongs to the principal.
func (m mapping) check(role string, claims jwt.MapClaims) *rejection {
	isApp := claims["idtyp"] == "app"
	oid, _ := claims["oid"].(string)
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
