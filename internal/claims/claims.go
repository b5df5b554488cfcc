// Package claims reads what a token of Entra says, and derives the PostgreSQL user
// from it.
package claims

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
)

// Claims are the payload of a token. They choose a name and nothing else, so
// nobody has to verify them here: the server does.
type Claims map[string]any

// Parse reads the payload of a JSON Web Token (RFC 7519).
func Parse(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token is no JSON Web Token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, errors.New("the token's payload is not base64url")
	}
	var c Claims
	if json.Unmarshal(payload, &c) != nil || c == nil {
		return nil, errors.New("the token's payload is no JSON object")
	}
	return c, nil
}

// Text returns a claim that is a string, empty where there is none.
func (c Claims) Text(key string) string {
	s, _ := c[key].(string)
	return s
}

// A Name is a PostgreSQL role's, and the claim that tells it. The zero value is
// no name.
type Name struct{ Role, Claim string }

// first returns the first of some claims that can be a role's name.
func (c Claims) first(keys ...string) Name {
	for _, key := range keys {
		if s := c.Text(key); UsableName(s) == nil {
			return Name{s, key}
		}
	}
	return Name{}
}

// Keys are the names of all claims, sorted.
func (c Claims) Keys() []string { return slices.Sorted(maps.Keys(c)) }

// Identity tells identities apart: the object ID, which the server goes by,
// within its tenant.
func (c Claims) Identity() string {
	oid, tid := c.Text("oid"), c.Text("tid")
	if oid == "" {
		return ""
	}
	return tid + "/" + oid
}

// Kinds of principals, as tokens tell them apart.
const (
	Person           = "person"
	ManagedIdentity  = "managed identity"
	ServicePrincipal = "service principal"
)

// Kind tells what kind of principal a token is for.
func (c Claims) Kind() string {
	switch {
	case c.Text("xms_mirid") != "" || c.Text("xms_idrel") != "" || c.Text("idtyp") == "app" && c.Text("appidacr") == "2" && c.Text("app_displayname") == "":
		return ManagedIdentity
	case c.Text("idtyp") == "app" || c.Text("scp") == "" && c.Text("upn") == "" && c.Text("unique_name") == "" && c.Text("appid") != "":
		return ServicePrincipal
	default:
		return Person
	}
}

// RoleName derives the PostgreSQL role that Azure's documentation has people
// create for an identity: a managed identity's own name, a person's user
// principal name, or the name of the resource that a system-assigned identity
// belongs to.
func (c Claims) RoleName() Name {
	const resource = "xms_mirid"
	userAssigned, name := resourceName(c.Text(resource))
	var own Name
	if UsableName(name) == nil {
		own = Name{name, resource}
	}
	person := c.first("upn", "preferred_username", "unique_name")
	switch {
	case userAssigned && own.Role != "":
		return own
	case userAssigned || person.Role != "":
		return person
	default:
		return own
	}
}

// ApplicationName is the last resort, for service principals.
func (c Claims) ApplicationName() Name { return c.first("app_displayname", "appid") }

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

// UsableName says why PostgreSQL could have no role of this name. Longer ones
// it would cut off silently, and so log in as somebody else.
func UsableName(name string) error {
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
