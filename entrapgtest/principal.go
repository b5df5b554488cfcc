package entrapgtest

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Kind is the kind of a [Principal].
type Kind string

// The kinds of principals that Azure Database for PostgreSQL maps roles to.
const (
	User                   Kind = "user"
	Guest                  Kind = "guest"
	Group                  Kind = "group"
	UserAssignedIdentity   Kind = "user-assigned identity"
	SystemAssignedIdentity Kind = "system-assigned identity"
	ServicePrincipal       Kind = "service principal"
)

// objectType returns the kind as an argument of pgaadauth_create_principal_with_oid.
func (k Kind) objectType() string {
	switch k {
	case User, Guest:
		return "user"
	case Group:
		return "group"
	default:
		return "service"
	}
}

// A Principal is a user, a guest, a group, a managed identity or a service principal of
// a [Tenant]. It is an [azcore.TokenCredential] that does not cache tokens; a group gets
// none. It is safe for concurrent use, but its fields must not be changed after the
// first token request.
type Principal struct {
	Kind       Kind
	Name       string // the usual name of its role: a UPN, a display name or a resource's name
	ObjectID   string
	ClientID   string // application ID of a managed identity or service principal
	ResourceID string // of a user-assigned identity, or of the resource that a system-assigned one belongs to
	Groups     []*Principal

	// Secrets with which clients get the principal's tokens over HTTP. Tokens of
	// managed identities come from a Host instead.
	ClientSecret string              // random, for service principals
	Certificates []*x509.Certificate // registered with a service principal; initially empty
	Password     string              // random, for users and guests

	// Claims are added to the principal's tokens for the database. They override the
	// default claims; a nil value removes one.
	Claims map[string]any

	tenant  *Tenant
	account string // of a guest, in the home directory
}

var _ azcore.TokenCredential = (*Principal)(nil)

// NewUser adds a member of the tenant and of groups. upn is the user principal name,
// such as "alice@contoso.example".
func (t *Tenant) NewUser(upn string, groups ...*Principal) *Principal {
	return t.add(&Principal{Kind: User, Name: upn, Groups: groups})
}

// NewGuest adds a guest, whose account is in another directory. account is the mail
// address in another tenant, or an identity provider, # and an address, as in
// "live.com#bob@outlook.example". Name becomes the user principal name that Entra
// assigns to such a guest, as in "bob_outlook.example#EXT#@contoso.example". As on
// Azure, the guest's tokens contain the account but not that name.
func (t *Tenant) NewGuest(account string, groups ...*Principal) *Principal {
	_, mail := splitAccount(account)
	name := strings.ReplaceAll(mail, "@", "_") + "#EXT#@" + tenantDomain
	return t.add(&Principal{Kind: Guest, Name: name, Groups: groups, account: account})
}

// splitAccount returns the identity provider of a guest's account, empty for
// another tenant, and the mail address.
func splitAccount(account string) (provider, mail string) {
	if provider, mail, ok := strings.Cut(account, "#"); ok {
		return provider, mail
	}
	return "", account
}

// NewGroup adds a group. Its members log in as the group's role with their own tokens.
// The group itself gets no tokens.
func (t *Tenant) NewGroup(displayName string) *Principal {
	return t.add(&Principal{Kind: Group, Name: displayName})
}

// NewUserAssignedIdentity adds a user-assigned managed identity. As on Azure, only its
// tokens for Azure Resource Manager contain its name.
func (t *Tenant) NewUserAssignedIdentity(name string) *Principal {
	return t.add(&Principal{
		Kind: UserAssignedIdentity, Name: name,
		ResourceID: resourceGroup + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name,
	})
}

// NewSystemAssignedIdentity adds the identity of a resource. resource is the part of the
// resource's ID after "/providers/", for example "Microsoft.Compute/virtualMachines/vm1"
// or "Microsoft.Web/sites/app1/slots/staging".
func (t *Tenant) NewSystemAssignedIdentity(resource string) *Principal {
	parts := strings.Split(resource, "/")
	name := parts[len(parts)-1]
	if len(parts) == 5 && strings.EqualFold(parts[3], "slots") {
		name = strings.Join(parts[2:], "/")
	}
	return t.add(&Principal{
		Kind: SystemAssignedIdentity, Name: name, ResourceID: resourceGroup + "/providers/" + resource,
	})
}

// NewServicePrincipal adds an application by its display name.
func (t *Tenant) NewServicePrincipal(displayName string) *Principal {
	return t.add(&Principal{Kind: ServicePrincipal, Name: displayName})
}

func (t *Tenant) add(p *Principal) *Principal {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := 0 // so that principals with the same kind and name get different IDs
	for _, other := range t.principals {
		if other.Kind == p.Kind && other.Name == p.Name {
			same++
		}
	}
	names := []string{string(p.Kind), p.Name, strconv.Itoa(same)}
	p.tenant = t
	p.ObjectID = t.seed.id("object", names...)
	switch p.Kind {
	case User, Guest:
		p.Password = t.seed.secret("password", names...)
	case ServicePrincipal:
		p.ClientSecret = t.seed.secret("secret", names...)
	}
	if p.Kind.objectType() == "service" {
		p.ClientID = t.seed.id("client", names...)
	}
	t.principals = append(t.principals, p)
	return p
}

// find returns the first principal that matches, or nil.
func (t *Tenant) find(is func(*Principal) bool) *Principal {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.IndexFunc(t.principals, is); i >= 0 {
		return t.principals[i]
	}
	return nil
}

// GetToken requests a token from the tenant. options must have one scope, which is a
// resource followed by "/.default". GetToken honors ctx and [Faults].
func (p *Principal) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(options.Scopes) != 1 {
		return azcore.AccessToken{}, fmt.Errorf("entrapgtest: GetToken takes one scope, not %d", len(options.Scopes))
	}
	token, err := p.getToken(ctx, options.Scopes[0])
	if err != nil {
		return azcore.AccessToken{}, fmt.Errorf("entrapgtest: %w", err)
	}
	return token, nil
}

func (p *Principal) getToken(ctx context.Context, scope string) (azcore.AccessToken, error) {
	resource, invalid := resourceOf(scope)
	if err := p.tenant.beginRequest(ctx, resource); err != nil {
		return azcore.AccessToken{}, err
	}
	if invalid != nil {
		return azcore.AccessToken{}, invalid
	}
	application := p.ClientID
	if application == "" {
		application = azureCLI
	}
	return p.tenant.issue(p, application, resource)
}

// Environ returns the variables with which azidentity's EnvironmentCredential
// authenticates as this service principal, user or guest. They contain the secret or
// password. For other kinds, Environ returns nil.
func (p *Principal) Environ() []string {
	environ := []string{"AZURE_AUTHORITY_HOST=" + p.tenant.url, "AZURE_TENANT_ID=" + p.tenant.ID}
	switch p.Kind {
	case ServicePrincipal:
		return append(environ, "AZURE_CLIENT_ID="+p.ClientID, "AZURE_CLIENT_SECRET="+p.ClientSecret)
	case User, Guest:
		name := p.Name
		if p.Kind == Guest {
			_, name = splitAccount(p.account)
		}
		return append(environ, "AZURE_CLIENT_ID="+azureCLI, "AZURE_USERNAME="+name, "AZURE_PASSWORD="+p.Password)
	default:
		return nil
	}
}

// claims returns the claims of an Entra access token for a resource, in version 1.0 as
// for Azure's databases. application is the ID of the client application.
// https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
func (p *Principal) claims(application, resource string, issued, expires time.Time) jwt.MapClaims {
	t := p.tenant
	c := jwt.MapClaims{
		"aud": resource,
		"iss": "https://sts.windows.net/" + t.ID + "/",
		"iat": issued.Unix(),
		"nbf": issued.Unix(),
		"exp": numericDate(expires),
		"idp": "https://sts.windows.net/" + t.ID + "/",
		"oid": p.ObjectID,
		"sub": p.ObjectID,
		"tid": t.ID,
		"uti": uuid.NewString(),
		"ver": "1.0",
	}
	management := strings.HasPrefix(resource, "https://management.")
	switch p.Kind {
	case User, Guest:
		given, _, _ := strings.Cut(p.Name, "@")
		maps.Copy(c, jwt.MapClaims{
			"acr": "1", "amr": []string{"pwd", "mfa"}, "appid": application, "appidacr": "0",
			"given_name": given, "name": given, "ipaddr": "203.0.113.7", "puid": "10032001" + p.ObjectID[:8],
			"scp": "user_impersonation", "unique_name": p.Name, "upn": p.Name,
		})
		if p.Kind == Guest {
			p.setGuestClaims(c)
		}
	case UserAssignedIdentity, SystemAssignedIdentity:
		maps.Copy(c, jwt.MapClaims{"appid": application, "appidacr": "2", "idtyp": "app", "xms_idrel": "7 32"})
		if management {
			c["xms_mirid"] = p.ResourceID
		}
	case ServicePrincipal:
		maps.Copy(c, jwt.MapClaims{"appid": application, "appidacr": "1", "app_displayname": p.Name, "idtyp": "app"})
	}
	if len(p.Groups) > 0 {
		ids := make([]string, len(p.Groups))
		for i, g := range p.Groups {
			ids[i] = g.ObjectID
		}
		c["groups"] = ids
	}
	if !management {
		for name, value := range p.Claims {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	return c
}

// setGuestClaims changes a member's claims into those of a guest: idp is the identity
// provider, unique_name is the account there, and upn is missing.
func (p *Principal) setGuestClaims(c jwt.MapClaims) {
	provider, mail := splitAccount(p.account)
	if provider == "" {
		_, domain, _ := strings.Cut(mail, "@")
		provider = "https://sts.windows.net/" + uuid.NewSHA1(uuid.NameSpaceDNS, []byte(domain)).String() + "/"
	}
	given, _, _ := strings.Cut(mail, "@")
	delete(c, "upn")
	maps.Copy(c,
		jwt.MapClaims{"idp": provider, "email": mail, "unique_name": p.account, "given_name": given, "name": given})
}

// numericDate returns a time in whole seconds, as in Entra's tokens. Only the short
// lifetimes of tests have fractions.
func numericDate(t time.Time) any {
	if t.Nanosecond() == 0 {
		return t.Unix()
	}
	return float64(t.UnixMicro()) / 1e6
}
