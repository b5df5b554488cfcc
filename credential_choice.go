package entrapg

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/imds"
)

// A credentialChoice is the credential that a DSN selects. Credentials of equal choices
// are interchangeable.
type credentialChoice struct {
	kind               *credentialKind
	clientID, tenantID string
	service            *azureService
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
