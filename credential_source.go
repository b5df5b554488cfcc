package entrapg

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/imds"
)

// A credentialSource holds a credential, which it creates when the first token is
// requested, so that creating a connector is cheap and needs no identity.
type credentialSource struct {
	name    string        // in errors and logs
	timeout time.Duration // of one request
	create  func() (azcore.TokenCredential, error)
	monitor *imds.Monitor // nil if it uses no managed identity endpoint

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

// progress describes the last answer of a managed identity endpoint to a request
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

// extension returns how much longer Connect waits while a managed identity endpoint
// is temporarily unavailable.
func (s *credentialSource) extension() time.Duration {
	if s.monitor == nil || !s.monitor.Unavailable() {
		return 0
	}
	return s.timeout - requestTimeout
}
