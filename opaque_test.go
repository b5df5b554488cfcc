package entrapg_test

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// opaque is a credential whose tokens are not JSON Web Tokens.
type opaque struct{}

// countingOpaque is an opaque credential that counts its calls.
type countingOpaque struct{ calls int }

func (c *countingOpaque) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
}
