package entrapgtest

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

const (
	tenantDomain  = "contoso.example"
	resourceGroup = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/entrapgtest"
	azureCLI      = "04b07795-8ddb-461a-bbee-02f9e1bf7b46" // application ID, the same in every tenant
)

// A Tenant emulates Microsoft Entra ID. It has principals, and issues signed tokens to
// them in this process and over HTTPS. Its methods are safe for concurrent use. Principals
// that are created with the same name are different principals.
type Tenant struct {
	ID string // a GUID

	// These are values so that a zero Tenant works: the emulator uses one to derive the
	// names of roles.
	site       site
	directory  directory
	tokens     tokenService
	federation federation
	arcKeys    arcKeys
}

// A site is where a tenant is reachable over HTTP.
type site struct {
	url         string       // of Entra, over HTTPS
	identityURL string       // of the managed identity endpoints, over plain HTTP
	thumbprint  string       // SHA-1 of the certificate over HTTPS, in hexadecimal digits
	client      *http.Client // reaches both URLs and trusts the certificate
}

func newTenant(st *state, life time.Duration, where site) *Tenant {
	id := st.Seed.id("tenant")
	return &Tenant{
		ID: id, site: where,
		directory:  directory{seed: st.Seed},
		tokens:     tokenService{tenantID: id, life: life, key: st.signingKey, keyID: st.Seed.id("key")},
		federation: federation{key: sync.OnceValues(newKey)},
	}
}

// URL returns the HTTPS URL of the tenant, without a path. It is the value for
// AZURE_AUTHORITY_HOST.
func (t *Tenant) URL() string { return t.site.url }

// ClientOptions returns options with which azidentity's credentials use the tenant and
// trust its certificate. Also set DisableInstanceDiscovery in the credential's own
// options; otherwise the credential sends a request to Microsoft first.
func (t *Tenant) ClientOptions() azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: t.site.url},
		Transport: t.site.client,
	}
}

// Requests returns the number of token requests, in this process and over HTTP,
// including those that failed.
func (t *Tenant) Requests() int { return t.tokens.count() }

// RequestsFor returns the number of token requests for one resource, such as
// "https://management.azure.com". At most 256 resources are counted.
func (t *Tenant) RequestsFor(resource string) int { return t.tokens.countFor(resource) }

// NewUser adds a user who is a member of the groups. upn is the user principal name, such
// as "alice@contoso.example".
func (t *Tenant) NewUser(upn string, groups ...*Principal) *Principal {
	return t.add(&Principal{Kind: User, Name: upn, Groups: groups})
}

// NewGuest adds a guest, whose account is in another directory. account is the mail
// address in another tenant, such as "bob@fabrikam.example", or PROVIDER#ADDRESS for
// another identity provider, such as "live.com#bob@outlook.example". Name becomes the user
// principal name that Entra assigns to such a guest, as in
// "bob_outlook.example#EXT#@contoso.example". As on Azure, the guest's tokens contain the
// account but not that name.
func (t *Tenant) NewGuest(account string, groups ...*Principal) *Principal {
	_, mail := splitAccount(account)
	name := strings.ReplaceAll(mail, "@", "_") + "#EXT#@" + tenantDomain
	return t.add(&Principal{Kind: Guest, Name: name, Groups: groups, account: account})
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

// NewServicePrincipal adds an application with a client secret. Its Name is displayName.
func (t *Tenant) NewServicePrincipal(displayName string) *Principal {
	return t.add(&Principal{Kind: ServicePrincipal, Name: displayName})
}

func (t *Tenant) add(p *Principal) *Principal {
	p.tenant = t
	return t.directory.add(p)
}

// NewHost adds a host with user- and system-assigned identities of the tenant. A client
// that selects no identity gets tokens of the system-assigned one or, except from App
// Service, of the only user-assigned one. NewHost panics if a principal is of another kind
// or tenant.
func (t *Tenant) NewHost(identities ...*Principal) *Host {
	for _, p := range identities {
		if p == nil || p.tenant != t || p.Kind != UserAssignedIdentity && p.Kind != SystemAssignedIdentity {
			panic("entrapgtest: a host accepts only managed identities of its own tenant")
		}
	}
	return t.directory.addHost(&Host{tenant: t, identities: slices.Clone(identities)})
}

// checkName returns an error if a request's path names another tenant.
func (t *Tenant) checkName(name string) error {
	if name != "" && name != t.ID && name != tenantDomain {
		return unknownTenant.with(name)
	}
	return nil
}
