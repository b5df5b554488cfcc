package entrapg_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// A credentialFunc is a credential that calls a function.
type credentialFunc func(ctx context.Context, scope string) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, options.Scopes[0])
}

// numbered is a credential whose tokens are token-1, token-2 and so on.
type numbered struct {
	life   time.Duration
	delay  time.Duration
	frozen bool // always returns its first token

	mu    sync.Mutex
	calls int
	err   error
}

func (n *numbered) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n.mu.Lock()
	n.calls++
	count, err, delay := n.calls, n.err, n.delay
	n.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return azcore.AccessToken{}, ctx.Err()
	}
	if n.frozen {
		count = 1
	}
	return azcore.AccessToken{Token: fmt.Sprintf("token-%d", count), ExpiresOn: time.Now().Add(n.life)}, err
}

func (n *numbered) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *numbered) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

// opaque is a credential whose tokens are not JSON Web Tokens.
type opaque struct{}

func (opaque) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// countingOpaque is an opaque credential that counts its calls.
type countingOpaque struct{ calls int }

func (c *countingOpaque) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
}
