package entrapg

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/imds"
	"github.com/entrapg/entrapg/internal/inspect"
)

// The DSN's keys that entrapg handles itself.
const (
	keyCredential = "entra_credential"
	keyClientID   = "entra_client_id"
	keyTenantID   = "entra_tenant_id"
	keyScope      = "entra_scope"
)

var ownKeys = []string{keyCredential, keyClientID, keyTenantID, keyScope}

// credentialVariables are azidentity's counterparts of the keys.
var credentialVariables = map[string]string{keyClientID: "AZURE_CLIENT_ID", keyTenantID: "AZURE_TENANT_ID"}

// A credentialKind is a value of entra_credential.
type credentialKind struct {
	name    string   // in DSNs
	typ     string   // azidentity's type, accepted in DSNs too
	keys    []string // of the DSN that it uses, in addition to entra_scope
	environ bool     // reads azidentity's variables for keys that the DSN does not set
	hosted  bool     // can use a managed identity endpoint
	create  func(credentialChoice, clientOptions) (azcore.TokenCredential, error)
}

// clientOptions are common to all of azidentity's credentials that use HTTP.
type clientOptions struct {
	azcore.ClientOptions
	disableInstanceDiscovery bool
}

const managedIdentityType = "ManagedIdentityCredential"

var (
	defaultKind = &credentialKind{
		name: "default", typ: "DefaultAzureCredential", keys: []string{keyTenantID}, environ: true, hosted: true,
		create: func(c credentialChoice, o clientOptions) (azcore.TokenCredential, error) {
			return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
				ClientOptions: o.ClientOptions, DisableInstanceDiscovery: o.disableInstanceDiscovery, TenantID: c.tenantID,
			})
		},
	}
	noneKind = &credentialKind{name: "none"}

	credentialKinds = []*credentialKind{
		defaultKind,
		{
			name: "environment", typ: "EnvironmentCredential", environ: true,
			create: func(_ credentialChoice, o clientOptions) (azcore.TokenCredential, error) {
				return azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{
					ClientOptions: o.ClientOptions, DisableInstanceDiscovery: o.disableInstanceDiscovery,
				})
			},
		},
		{
			name: "workloadidentity", typ: "WorkloadIdentityCredential", keys: []string{keyClientID, keyTenantID}, environ: true,
			create: func(c credentialChoice, o clientOptions) (azcore.TokenCredential, error) {
				return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
					ClientOptions: o.ClientOptions, DisableInstanceDiscovery: o.disableInstanceDiscovery,
					ClientID: c.clientID, TenantID: c.tenantID,
					EnableAzureProxy: true, // does nothing unless AKS sets the variables of identity bindings
				})
			},
		},
		{
			name: "managedidentity", typ: managedIdentityType, keys: []string{keyClientID}, hosted: true,
			create: func(c credentialChoice, o clientOptions) (azcore.TokenCredential, error) {
				if err := imds.CheckEnvironment(); err != nil {
					return nil, err
				}
				options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: o.ClientOptions}
				if c.clientID != "" {
					options.ID = azidentity.ClientID(c.clientID)
				}
				return azidentity.NewManagedIdentityCredential(options)
			},
		},
		{
			name: "azurecli", typ: "AzureCLICredential", keys: []string{keyTenantID},
			create: func(c credentialChoice, _ clientOptions) (azcore.TokenCredential, error) {
				return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: c.tenantID})
			},
		},
		{
			name: "azuredevelopercli", typ: "AzureDeveloperCLICredential", keys: []string{keyTenantID},
			create: func(c credentialChoice, _ clientOptions) (azcore.TokenCredential, error) {
				return azidentity.NewAzureDeveloperCLICredential(
					&azidentity.AzureDeveloperCLICredentialOptions{TenantID: c.tenantID})
			},
		},
		{
			name: "azurepowershell", typ: "AzurePowerShellCredential", keys: []string{keyTenantID},
			create: func(c credentialChoice, _ clientOptions) (azcore.TokenCredential, error) {
				return azidentity.NewAzurePowerShellCredential(&azidentity.AzurePowerShellCredentialOptions{TenantID: c.tenantID})
			},
		},
		noneKind,
	}
)

// parseCredentialKind returns the kind with the given name, in any case.
func parseCredentialKind(name string) (*credentialKind, error) {
	for _, k := range credentialKinds {
		if strings.EqualFold(name, k.name) || k.typ != "" && strings.EqualFold(name, k.typ) {
			return k, nil
		}
	}
	return nil, &ConfigError{
		Setting: keyCredential,
		Problem: fmt.Sprintf("unknown credential %q; use one of %s", name, strings.Join(credentialNames(), ", ")),
	}
}

// credentialNames implements [inspect.Credentials].
func credentialNames() []string {
	var names []string
	for _, k := range credentialKinds {
		names = append(names, k.name)
	}
	return names
}

const guidPattern = `[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}`

var (
	clientIDPattern = regexp.MustCompile(`^` + guidPattern + `$`)
	tenantIDPattern = regexp.MustCompile(`^(` + guidPattern + `|([0-9A-Za-z-]+\.)+[0-9A-Za-z-]+)$`)
)

// check returns an error if the credential does not use a key or the value is
// invalid.
func (k *credentialKind) check(key, value string) error {
	var problem string
	var fix inspect.Fix
	switch {
	case key == keyCredential:
		return nil
	case slices.Contains(k.keys, key), key == keyScope && k != noneKind:
	case k.environ:
		problem = fmt.Sprintf("not used with entra_credential=%s, which reads %s; set that, or choose another credential",
			k.name, credentialVariables[key])
		fix.Variable = credentialVariables[key]
	default:
		problem = fmt.Sprintf("not used with entra_credential=%s; remove it", k.name)
	}
	switch {
	case problem != "":
	case strings.TrimSpace(value) == "":
		problem = "must not be empty; omit it"
	case key == keyClientID && !clientIDPattern.MatchString(value):
		problem = fmt.Sprintf("%q is not a client ID, which is a GUID that Azure shows with the identity", value)
		fix.Malformed = true
	case key == keyTenantID && !tenantIDPattern.MatchString(value):
		problem = fmt.Sprintf("%q is not a tenant, which is a GUID or a domain", value)
		fix.Malformed = true
	default:
		return nil
	}
	return &ConfigError{Setting: key, Problem: problem, fix: fix}
}
