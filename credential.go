package entrapg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/credfail"
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

// A credentialChoice is the credential that a DSN selects. Credentials of equal choices
// are interchangeable.
type credentialChoice struct {
	kind               *credentialKind
	clientID, tenantID string
	service            *azureService
}

// A credentialKind is a value of entra_credential.
type credentialKind struct {
	name    string   // in DSNs
	typ     string   // azidentity's type, accepted in DSNs too
	keys    []string // of the DSN that it uses, in addition to entra_scope
	environ bool     // reads azidentity's variables for keys that the DSN does not set
	hosted  bool     // can use a managed-identity endpoint
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
	var known []string
	for _, k := range credentialKinds {
		if strings.EqualFold(name, k.name) || k.typ != "" && strings.EqualFold(name, k.typ) {
			return k, nil
		}
		known = append(known, k.name)
	}
	return nil, &ConfigError{
		Setting: keyCredential,
		Problem: fmt.Sprintf("unknown credential %q; use one of %s", name, strings.Join(known, ", ")),
	}
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

// chooseCredential returns the credential that the DSN's keys choose for a service.
// It returns an error if the keys are invalid or contradict the options.
func chooseCredential(keys map[string]string, o *options, azure *azureService) (credentialChoice, error) {
	choice := credentialChoice{kind: defaultKind, clientID: keys[keyClientID], tenantID: keys[keyTenantID], service: azure}
	if name, ok := keys[keyCredential]; ok {
		kind, err := parseCredentialKind(name)
		if err != nil {
			return choice, err
		}
		choice.kind = kind
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		switch {
		case key == keyScope && o.scope != "" && keys[key] != o.scope:
			return choice, &ConfigError{Setting: key, Problem: "the DSN and WithScope set different scopes; remove one"}
		case key != keyScope && o.credential != nil:
			return choice, &ConfigError{
				Setting: key,
				Problem: "not used with WithCredential, which sets the credential; remove one",
			}
		}
		if err := choice.kind.check(key, keys[key]); err != nil {
			return choice, err
		}
	}
	return choice, nil
}

// A credentialSource holds a credential, which it creates when the first token is
// requested, so that creating a connector is cheap and needs no identity.
type credentialSource struct {
	name    string        // in errors and logs
	timeout time.Duration // of one request
	create  func() (azcore.TokenCredential, error)
	monitor *imds.Monitor // nil if it uses no managed-identity endpoint

	settings credfail.Settings // that choose the identity

	mu      sync.Mutex // guards created
	created azcore.TokenCredential
}

// sourceOf returns the source of a credential that the program has created.
func sourceOf(credential azcore.TokenCredential) *credentialSource {
	s := &credentialSource{
		name:    strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", credential), "*"), "azidentity."),
		timeout: requestTimeout,
		created: credential,
	}
	switch credential.(type) {
	case *azidentity.DeviceCodeCredential, *azidentity.InteractiveBrowserCredential:
		s.timeout = interactiveTimeout
	}
	return s
}

// settings returns the names of the settings that choose the identity: the DSN's
// keys, or the variables that azidentity reads if the keys are not set.
func (c credentialChoice) settings() credfail.Settings {
	name := func(key, value string) string {
		if c.kind.environ && value == "" {
			return credentialVariables[key]
		}
		return key
	}
	return credfail.Settings{ClientID: name(keyClientID, c.clientID), TenantID: name(keyTenantID, c.tenantID)}
}

// source returns a source of the chosen credential, which dials with dial.
func (c credentialChoice) source(dial dialFunc) *credentialSource {
	client := sync.OnceValue(func() *http.Client { return imds.NewClient(dial) })
	s := &credentialSource{name: c.kind.typ, timeout: requestTimeout, settings: c.settings()}
	if c.kind.hosted {
		s.timeout, s.monitor = imds.MaxWait, &imds.Monitor{}
	}
	s.create = func() (azcore.TokenCredential, error) {
		o := clientOptions{ClientOptions: azcore.ClientOptions{Transport: client()}}
		if s.monitor != nil {
			s.monitor.Install(&o.ClientOptions)
		}
		// azidentity reads AZURE_AUTHORITY_HOST only if its options set no authority.
		authority := os.Getenv(authorityVariable)
		if authority == "" {
			o.Cloud = c.service.authority
			return c.kind.create(c, o)
		}
		o.disableInstanceDiscovery = serviceOfAuthority(authority) == nil
		credential, err := c.kind.create(c, o)
		if err != nil {
			return nil, fmt.Errorf("%w (%s is %q)", err, authorityVariable, authority)
		}
		return credential, nil
	}
	return s
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// defaultDial dials for the credentials that DSNs choose.
var defaultDial = new(net.Dialer).DialContext

// get returns the credential. If it cannot be created, the next call tries again.
func (s *credentialSource) get() (azcore.TokenCredential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.created == nil {
		created, err := s.create()
		if err != nil {
			return nil, err
		}
		if s.monitor != nil {
			created = &hostedCredential{credential: created, monitor: s.monitor}
		}
		s.created = created
	}
	return s.created, nil
}

// progress describes the last answer of a managed-identity endpoint to a request
// that timed out. It returns "" if there is none.
func (s *credentialSource) progress() string {
	if s.monitor == nil || s.name != managedIdentityType && !s.monitor.Unavailable() {
		return "" // DefaultAzureCredential may have timed out elsewhere
	}
	return s.monitor.Progress()
}

// wait returns how long one Connect waits for tokens in total.
func (s *credentialSource) wait() time.Duration {
	if s.monitor != nil {
		return requestTimeout
	}
	return s.timeout
}

// extension returns how much longer Connect waits while a managed-identity endpoint
// is temporarily unavailable.
func (s *credentialSource) extension() time.Duration {
	if s.monitor == nil || !s.monitor.Unavailable() {
		return 0
	}
	return s.timeout - requestTimeout
}

// retryAfter returns the delay that the response behind an error requests, or zero.
func retryAfter(err error) time.Duration {
	var response *http.Response
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		response = failed.RawResponse
	} else if rejected, ok := errors.AsType[*azcore.ResponseError](err); ok {
		response = rejected.RawResponse
	}
	if response == nil {
		return 0
	}
	header := response.Header
	if ms, err := strconv.Atoi(cmp.Or(header.Get("Retry-After-Ms"), header.Get("X-Ms-Retry-After-Ms"))); err == nil {
		return time.Duration(ms) * time.Millisecond
	}
	after := header.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil {
		return time.Duration(min(s, 1<<30)) * time.Second
	}
	if at, err := http.ParseTime(after); err == nil {
		return time.Until(at)
	}
	return 0
}
