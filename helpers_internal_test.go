package entrapg

import (
	"context"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// credentialFunc is a credential made of a function.
type credentialFunc func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, o)
}

var quiet = slog.New(slog.DiscardHandler)

type oneHour struct{ calls int }

func (c *oneHour) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	now := time.Now() // with its monotonic reading, as credentials have it
	return azcore.AccessToken{Token: "t", ExpiresOn: now.Add(time.Hour)}, nil
}

// sourceOn is a source of credential's tokens on a clock of the test's own.
func sourceOn(credential *oneHour, now func() time.Time) *tokenSource {
	return &tokenSource{
		credential: given(credential),
		now:        now,
	}
}
