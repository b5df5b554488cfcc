package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// A credential requests a principal's tokens, and caches them or not, as one of
// azidentity's credentials does. Each way has its own.
type credential struct {
	principal azcore.TokenCredential
	latency   time.Duration // of a request
	serial    bool          // one request at a time
	caches    bool          // keeps a token until the last quarter of its life; serial, too

	requests atomic.Int64
	down     atomic.Bool // Entra does not answer
	during   func()      // called halfway through a request

	lock sync.Mutex // held during a request if serial, as in azidentity
	kept atomic.Pointer[kept]
}

// kept is the newest token.
type kept struct {
	token azcore.AccessToken
	stale time.Time // its last quarter begins
}

// commandLine imitates azidentity.AzureCLICredential: it caches nothing, and runs
// one command at a time.
func commandLine(principal azcore.TokenCredential, latency time.Duration) *credential {
	return &credential{principal: principal, latency: latency, serial: true}
}

// managedIdentity imitates azidentity.ManagedIdentityCredential before it has a
// token: each caller makes a request.
func managedIdentity(principal azcore.TokenCredential, latency time.Duration) *credential {
	return &credential{principal: principal, latency: latency}
}

// clientSecret imitates azidentity.ClientSecretCredential: it caches, and makes one
// request at a time.
func clientSecret(principal azcore.TokenCredential, latency time.Duration) *credential {
	return &credential{principal: principal, latency: latency, serial: true, caches: true}
}

var errEntraDown = errors.New("no answer from Entra")

func (c *credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if c.serial {
		c.lock.Lock()
		defer c.lock.Unlock()
	}
	if kept := c.kept.Load(); c.caches && kept != nil && time.Now().Before(kept.stale) {
		return kept.token, nil
	}
	c.requests.Add(1)
	if err := sleep(ctx, c.latency/2); err != nil {
		return azcore.AccessToken{}, err
	}
	if c.during != nil {
		c.during()
	}
	if err := sleep(ctx, c.latency/2); err != nil {
		return azcore.AccessToken{}, err
	}
	if c.down.Load() {
		return azcore.AccessToken{}, errEntraDown
	}
	token, err := c.principal.GetToken(ctx, options)
	if err == nil {
		c.kept.Store(&kept{token, token.ExpiresOn.Add(-time.Until(token.ExpiresOn) / 4)})
	}
	return token, err
}

// expires returns the expiry of the newest token.
func (c *credential) expires() time.Time {
	if kept := c.kept.Load(); kept != nil {
		return kept.token.ExpiresOn
	}
	return time.Time{}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
