package entrapg

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
)

// claims are the payload of a token. They choose a name and nothing else, so
// nobody has to verify them here: the server does.
type claims map[string]any

// parseClaims reads the payload of a JSON Web Token (RFC 7519).
func parseClaims(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token is no JSON Web Token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, errors.New("the token's payload is not base64url")
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil || c == nil {
		return nil, errors.New("the token's payload is no JSON object")
	}
	return c, nil
}

// name returns a claim that can be a role's name, empty where there is none.
func (c claims) name(key string) string {
	if s, _ := c[key].(string); usableName(s) == nil {
		return s
	}
	return ""
}

func (c claims) keys() []string { return slices.Sorted(maps.Keys(c)) }

// identity tells identities apart: the object ID, which the server goes by,
// within its tenant.
func (c claims) identity() string {
	oid, _ := c["oid"].(string)
	tid, _ := c["tid"].(string)
	if oid == "" {
		return ""
	}
	return tid + "/" + oid
}

// roleName derives the PostgreSQL role that Azure's documentation has people
// create for an identity: a managed identity's own name, a person's user
// principal name, or the name of the resource that a system-assigned identity
// belongs to.
func (c claims) roleName() string {
	resource, _ := c["xms_mirid"].(string)
	userAssigned, name := resourceName(resource)
	if usableName(name) != nil {
		name = ""
	}
	if userAssigned && name != "" {
		return name
	}
	for _, key := range []string{"upn", "preferred_username", "unique_name"} {
		if n := c.name(key); n != "" {
			return n
		}
	}
	if !userAssigned {
		return name
	}
	return ""
}

// applicationName is the last resort, for service principals.
func (c claims) applicationName() string {
	if n := c.name("app_displayname"); n != "" {
		return n
	}
	return c.name("appid")
}

// resourceName takes a managed identity's name from the ID of the resource
// that it belongs to: the last part, but APP/slots/SLOT for a deployment slot
// of App Service. Tokens spell the fixed parts in any case.
func resourceName(id string) (userAssigned bool, name string) {
	lower := strings.ToLower(id)
	const providers = "/providers/"
	i := strings.LastIndex(lower, providers)
	if i < 0 {
		return false, ""
	}
	parts := strings.Split(id[i+len(providers):], "/")
	kinds := strings.Split(lower[i+len(providers):], "/")
	if len(parts) < 3 || len(parts)%2 == 0 {
		return false, "" // not NAMESPACE/TYPE/NAME, nor with further /TYPE/NAME
	}
	switch {
	case len(parts) == 3 && kinds[0] == "microsoft.managedidentity" && kinds[1] == "userassignedidentities":
		return true, parts[2]
	case len(parts) == 5 && kinds[0] == "microsoft.web" && kinds[1] == "sites" && kinds[3] == "slots":
		return false, parts[2] + "/slots/" + parts[4]
	default:
		return false, parts[len(parts)-1]
	}
}

// usableName says why PostgreSQL could have no role of this name. Longer ones
// it would cut off silently, and so log in as somebody else.
func usableName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > 63:
		return errors.New("it is longer than 63 bytes, the most that PostgreSQL keeps of a role's name")
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("it has a NUL byte")
	}
	return nil
}
