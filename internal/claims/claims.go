// Package claims reads the claims of Entra tokens and derives PostgreSQL users from
// them.
package claims

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
)

// Claims are the payload of a token. The signature is not verified: the claims only
// determine a name, and the server verifies the token.
type Claims map[string]any

// Parse reads the payload of a JSON Web Token (RFC 7519).
func Parse(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token is not a JSON Web Token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, errors.New("the token's payload is not base64url")
	}
	var c Claims
	if json.Unmarshal(payload, &c) != nil || c == nil {
		return nil, errors.New("the token's payload is not a JSON object")
	}
	return c, nil
}

// Text returns the value of a claim, or "" if it is missing or not a string.
func (c Claims) Text(key string) string {
	s, _ := c[key].(string)
	return s
}

// A Name is the name of a PostgreSQL role, and the claim that it comes from. The
// zero value is no name.
type Name struct{ Role, Claim string }

// first returns the first of the named claims that can be the name of a role.
func (c Claims) first(keys ...string) Name {
	for _, key := range keys {
		if s := c.Text(key); UsableName(s) == nil {
			return Name{s, key}
		}
	}
	return Name{}
}

// Keys returns the names of all claims, sorted.
func (c Claims) Keys() []string { return slices.Sorted(maps.Keys(c)) }

// Principal returns the tenant and the object ID, which the server uses to map tokens to
// roles. It returns "" if the token has no object ID.
func (c Claims) Principal() string {
	oid, tid := c.Text("oid"), c.Text("tid")
	if oid == "" {
		return ""
	}
	return tid + "/" + oid
}

// Kinds of principals.
const (
	User             = "user"
	ManagedIdentity  = "managed identity"
	ServicePrincipal = "service principal"
)

// Kind returns the kind of principal that a token is for.
func (c Claims) Kind() string {
	switch {
	case c.Text("xms_mirid") != "" || c.Text("xms_idrel") != "" ||
		c.Text("idtyp") == "app" && c.Text("appidacr") == "2" && c.Text("app_displayname") == "":
		return ManagedIdentity
	case c.Text("idtyp") == "app" ||
		c.Text("scp") == "" && c.Text("upn") == "" && c.Text("unique_name") == "" && c.Text("appid") != "":
		return ServicePrincipal
	default:
		return User
	}
}

// Guest reports whether a token is for a guest: a user whose account belongs to another
// tenant or another identity provider.
func (c Claims) Guest() bool {
	provider, tenant := c.Text("idp"), c.Text("tid")
	return c.Kind() == User && c.Text("upn") == "" && provider != "" && tenant != "" &&
		!strings.Contains(provider, tenant)
}

// GuestRole explains why the token of a guest does not tell which role to log in as.
const GuestRole = "the token belongs to a guest and does not contain the name of the guest's role, which contains #EXT#"

// GuestName returns the name of a guest's role, with a placeholder for the domain of the
// tenant, which the token does not contain.
func (c Claims) GuestName() string {
	account := c.Text("unique_name")
	if email := c.Text("email"); email != "" {
		account = email
	}
	if _, mail, ok := strings.Cut(account, "#"); ok { // provider#mail
		account = mail
	}
	if UsableName(account) != nil || !strings.Contains(account, "@") {
		account = "NAME@DOMAIN"
	}
	return strings.ReplaceAll(account, "@", "_") + "#EXT#@" + tenantDomain
}

// tenantDomain stands for the tenant's first domain.
const tenantDomain = "TENANT.onmicrosoft.com"

// RoleName returns the name of the role that Azure's documentation tells users to
// create for an identity: the name of a managed identity, a user's user principal
// name, or the name of the resource with a system-assigned identity.
func (c Claims) RoleName() Name {
	const resource = "xms_mirid"
	userAssigned, name := resourceName(c.Text(resource))
	var identity Name
	if UsableName(name) == nil {
		identity = Name{name, resource}
	}
	user := c.first("upn", "preferred_username", "unique_name")
	switch {
	case userAssigned && identity.Role != "":
		return identity
	case userAssigned || user.Role != "":
		return user
	default:
		return identity
	}
}

// ApplicationName returns the name of the role of a service principal. It is used if
// RoleName returns none.
func (c Claims) ApplicationName() Name { return c.first("app_displayname", "appid") }

// resourceName returns the name of the resource with the given ID: the last part,
// or APP/slots/SLOT for a deployment slot of App Service. Tokens spell the fixed
// parts in lower or upper case.
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
		return false, "" // not NAMESPACE/TYPE/NAME[/TYPE/NAME...]
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

// UsableName returns an error if PostgreSQL cannot have a role of this name.
// PostgreSQL silently truncates a longer name, which can be that of another role.
func UsableName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > 63:
		return errors.New("it is longer than 63 bytes, to which PostgreSQL truncates names")
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("it contains a NUL byte")
	}
	return nil
}
