package entrapg

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// A credentialChoice is what a DSN says about the credential, and what the
// host's cloud adds. Equal ones make credentials that can stand in for each other.
type credentialChoice struct {
	kind               *credentialKind
	clientID, tenantID string
	cloud              *azureCloud
}

// A credentialKind is a value of entra_credential.
type credentialKind struct {
	name    string   // as in DSNs; azidentity's own name will do too
	typ     string   // azidentity's name
	uses    []string // keys of the DSN, besides entra_scope
	environ bool     // for other keys, the environment has variables
	make    func(credentialChoice, clientSettings) (azcore.TokenCredential, error)
}

// clientSettings are what all of azidentity's options have that speak HTTP.
type clientSettings struct {
	azcore.ClientOptions
	private bool // the authority is none of Azure's own, so that Azure cannot vouch for it
}

const (
	keyCredential = "entra_credential"
	keyClientID   = "entra_client_id"
	keyTenantID   = "entra_tenant_id"
	keyScope      = "entra_scope"
)

// ownKeys are the keys of a DSN that are entrapg's.
var ownKeys = []string{keyCredential, keyClientID, keyTenantID, keyScope}

const managedIdentity = "ManagedIdentityCredential"

var (
	defaultKind = &credentialKind{
		name: "default", typ: "DefaultAzureCredential", uses: []string{keyTenantID}, environ: true,
		make: func(c credentialChoice, s clientSettings) (azcore.TokenCredential, error) {
			return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
				ClientOptions: s.ClientOptions, DisableInstanceDiscovery: s.private, TenantID: c.tenantID,
			})
		},
	}
	noneKind = &credentialKind{name: "none"}

	credentialKinds = []*credentialKind{
		defaultKind,
		{
			name: "environment", typ: "EnvironmentCredential", environ: true,
			make: func(_ credentialChoice, s clientSettings) (azcore.TokenCredential, error) {
				return azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{
					ClientOptions: s.ClientOptions, DisableInstanceDiscovery: s.private,
				})
			},
		},
		{
			name: "workloadidentity", typ: "WorkloadIdentityCredential", uses: []string{keyClientID, keyTenantID},
			make: func(c credentialChoice, s clientSettings) (azcore.TokenCredential, error) {
				return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
					ClientOptions: s.ClientOptions, DisableInstanceDiscovery: s.private, ClientID: c.clientID, TenantID: c.tenantID,
				})
			},
		},
		{
			name: "managedidentity", typ: managedIdentity, uses: []string{keyClientID},
			make: func(c credentialChoice, s clientSettings) (azcore.TokenCredential, error) {
				options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: s.ClientOptions}
				if c.clientID != "" {
					options.ID = azidentity.ClientID(c.clientID)
				}
				return azidentity.NewManagedIdentityCredential(options)
			},
		},
		{
			name: "azurecli", typ: "AzureCLICredential", uses: []string{keyTenantID},
			make: func(c credentialChoice, _ clientSettings) (azcore.TokenCredential, error) {
				return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: c.tenantID})
			},
		},
		{
			name: "azuredevelopercli", typ: "AzureDeveloperCLICredential", uses: []string{keyTenantID},
			make: func(c credentialChoice, _ clientSettings) (azcore.TokenCredential, error) {
				return azidentity.NewAzureDeveloperCLICredential(&azidentity.AzureDeveloperCLICredentialOptions{TenantID: c.tenantID})
			},
		},
		{
			name: "azurepowershell", typ: "AzurePowerShellCredential", uses: []string{keyTenantID},
			make: func(c credentialChoice, _ clientSettings) (azcore.TokenCredential, error) {
				return azidentity.NewAzurePowerShellCredential(&azidentity.AzurePowerShellCredentialOptions{TenantID: c.tenantID})
			},
		},
		noneKind,
	}
)

// credentialKindOf finds the kind that a DSN names, in any case.
func credentialKindOf(name string) (*credentialKind, error) {
	var known []string
	for _, k := range credentialKinds {
		if strings.EqualFold(name, k.name) || k.typ != "" && strings.EqualFold(name, k.typ) {
			return k, nil
		}
		known = append(known, k.name)
	}
	return nil, &ConfigError{Setting: keyCredential, Problem: fmt.Sprintf("there is no credential %q: use one of %s", name, strings.Join(known, ", "))}
}

// check refuses a key that has no meaning for the credential, or a value that
// cannot be one.
func (k *credentialKind) check(key, value string) error {
	problem := ""
	switch {
	case key == keyCredential:
		return nil
	case slices.Contains(k.uses, key), key == keyScope && k != noneKind:
	case k.environ:
		problem = "entra_credential=" + k.name + " takes it from the environment: set " + variables[key] + ", or choose another credential"
	default:
		problem = "entra_credential=" + k.name + " has no use for it: remove it"
	}
	switch {
	case problem != "":
	case strings.TrimSpace(value) == "":
		problem = "it is empty: leave the key out"
	case key == keyClientID && !clientID.MatchString(value):
		problem = "it is no client ID, which is a GUID that Azure shows with the identity"
	case key == keyTenantID && !tenantID.MatchString(value):
		problem = "it is no tenant, which is a GUID or a domain"
	default:
		return nil
	}
	return &ConfigError{Setting: key, Problem: problem}
}

// variables are azidentity's, for what the keys say.
var variables = map[string]string{keyClientID: "AZURE_CLIENT_ID", keyTenantID: "AZURE_TENANT_ID"}

var (
	clientID = regexp.MustCompile(`^[0-9A-Za-z-]+$`)
	tenantID = regexp.MustCompile(`^[0-9A-Za-z.-]+$`)
)

// choose puts together what the DSN and the options say about the credential.
func (t *target) choose(o *options, azure *azureCloud) (credentialChoice, error) {
	choice := credentialChoice{kind: cmp.Or(t.credential, defaultKind), clientID: t.entra[keyClientID], tenantID: t.entra[keyTenantID], cloud: azure}
	for _, key := range slices.Sorted(maps.Keys(t.entra)) {
		switch {
		case key == keyScope && o.scope != "" && t.entra[key] != o.scope:
			return choice, &ConfigError{Setting: key, Problem: "the DSN and WithScope name different scopes: keep one"}
		case key != keyScope && o.credential != nil:
			return choice, &ConfigError{Setting: key, Problem: "the program gives a credential of its own by WithCredential, which the DSN cannot choose or change: keep one"}
		}
		if err := choice.kind.check(key, t.entra[key]); err != nil {
			return choice, err
		}
	}
	return choice, nil
}

// A lazyCredential is made when the first token is asked for, so that building
// a connector costs nothing and cannot fail for lack of an identity.
type lazyCredential struct {
	name   string // in errors and logs
	create func() (azcore.TokenCredential, error)
	rest   func() // ends what net/http keeps running after a request

	mu   sync.Mutex // guards made
	made azcore.TokenCredential
}

// given wraps a credential that somebody else has made.
func given(credential azcore.TokenCredential) *lazyCredential {
	name := strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", credential), "*"), "azidentity.")
	return &lazyCredential{name: name, made: credential, rest: func() {}}
}

// lazy makes the credential of a DSN's choice, when it is needed.
func (c credentialChoice) lazy(dial dialFunc) *lazyCredential {
	client := sync.OnceValue(func() *http.Client { return newHTTPClient(dial) })
	return &lazyCredential{
		name: c.kind.typ,
		create: func() (azcore.TokenCredential, error) {
			s := clientSettings{ClientOptions: azcore.ClientOptions{Transport: client()}}
			// azidentity heeds AZURE_AUTHORITY_HOST only where the options name no authority.
			host := os.Getenv(authorityVariable)
			if host == "" {
				s.Cloud = c.cloud.authority
				return c.kind.make(c, s)
			}
			s.private = cloudOfAuthority(host) == nil
			credential, err := c.kind.make(c, s)
			if err != nil {
				return nil, fmt.Errorf("%w (%s is %q)", err, authorityVariable, host)
			}
			return credential, nil
		},
		rest: func() { client().CloseIdleConnections() },
	}
}

// get returns the credential. One that could not be made is tried again by the
// next caller: what was missing may be there by then.
func (l *lazyCredential) get() (azcore.TokenCredential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == nil {
		made, err := l.create()
		if err != nil {
			return nil, err
		}
		l.made = made
	}
	return l.made, nil
}
