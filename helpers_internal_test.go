package entrapg

import (
	"context"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// A credentialFunc is a credential that calls a function.
type credentialFunc func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, o)
}

var quiet = slog.New(slog.DiscardHandler)

// oneHour is a credential whose tokens are valid for an hour.
type oneHour struct{ calls int }

func (c *oneHour) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	now := time.Now() // with a monotonic reading, as credentials return it
	return azcore.AccessToken{Token: "t", ExpiresOn: now.Add(time.Hour)}, nil
}
