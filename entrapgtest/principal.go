package entrapgtest

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
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
// a [Tenant], which creates it. It is an [azcore.TokenCredential] that does not cache
// tokens. Groups get no tokens. A Principal is safe for concurrent use. Set Groups,
// Certificates and Claims before its first use; the other fields must not be changed.
type Principal struct {
	Kind       Kind
	Name       string       // the usual name of its role: a UPN, a display name or a resource's name
	ObjectID   string       // a GUID
	ClientID   string       // application ID of a managed identity or service principal: a GUID
	ResourceID string       // of a user-assigned identity, or of the resource that a system-assigned one belongs to
	Groups     []*Principal // that it is a member of

	// Secrets with which clients get the principal's tokens over HTTPS. Tokens of
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

// GetToken requests a token from the tenant. options must have one scope, which is a
// resource followed by "/.default", such as [DefaultScope]. GetToken ignores the other
// options. It is subject to [Faults]. Errors of Entra contain their AADSTS code. A delay
// ends with ctx.
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
	if err := p.tenant.tokens.begin(ctx, resource); err != nil {
		return azcore.AccessToken{}, err
	}
	if invalid != nil {
		return azcore.AccessToken{}, invalid
	}
	application := p.ClientID
	if application == "" {
		application = azureCLI
	}
	return p.tenant.tokens.issue(p, application, resource)
}

// Environ returns the variables, in the form NAME=VALUE, with which azidentity's
// EnvironmentCredential authenticates as this service principal, user or guest. They
// contain the secret or password. For other kinds, Environ returns nil.
func (p *Principal) Environ() []string {
	environ := []string{"AZURE_AUTHORITY_HOST=" + p.tenant.site.url, "AZURE_TENANT_ID=" + p.tenant.ID}
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

// FederatedToken returns a JSON Web Token like those that Kubernetes mounts for workload
// identity, in the file that AZURE_FEDERATED_TOKEN_FILE names. It is valid for an hour. The
// tenant accepts it only as the client assertion of this service principal or user-assigned
// identity. For other kinds, FederatedToken returns an error.
func (p *Principal) FederatedToken() (string, error) {
	if p.Kind != ServicePrincipal && p.Kind != UserAssignedIdentity {
		return "", fmt.Errorf("entrapgtest: a %s cannot have a federated credential", p.Kind)
	}
	return p.tenant.federation.issue(p)
}

// claims returns the claims of an Entra access token for a resource, in version 1.0 as
// for Azure's databases. application is the ID of the client application.
// https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
func (p *Principal) claims(application, resource string, issued, expires time.Time) jwt.MapClaims {
	tenantID := p.tenant.ID
	c := jwt.MapClaims{
		"aud": resource,
		"iss": "https://sts.windows.net/" + tenantID + "/",
		"iat": issued.Unix(),
		"nbf": issued.Unix(),
		"exp": numericDate(expires),
		"idp": "https://sts.windows.net/" + tenantID + "/",
		"oid": p.ObjectID,
		"sub": p.ObjectID,
		"tid": tenantID,
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

// splitAccount returns the identity provider of a guest's account, empty for
// another tenant, and the mail address.
func splitAccount(account string) (provider, mail string) {
	if provider, mail, ok := strings.Cut(account, "#"); ok {
		return provider, mail
	}
	return "", account
}

// numericDate returns a time in whole seconds, as in Entra's tokens. Only the short
// lifetimes of tests have fractions.
func numericDate(t time.Time) any {
	if t.Nanosecond() == 0 {
		return t.Unix()
	}
	return float64(t.UnixMicro()) / 1e6
}
