package entrapg_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

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
