package entrapg

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/entrapg/entrapg/internal/imds"
	"github.com/entrapg/entrapg/internal/token"
)

// A hostedCredential is a credential that can use a managed identity endpoint. Its
// requests time out after requestTimeout, unless the endpoint is temporarily
// unavailable.
type hostedCredential struct {
	credential azcore.TokenCredential
	monitor    *imds.Monitor
}

func (h *hostedCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(requestTimeout, func() {
		if !h.monitor.Unavailable() {
			cancel(token.NoAnswer(requestTimeout))
		}
	})
	defer limit.Stop()
	access, err := h.credential.GetToken(limited, o)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return access, context.Cause(limited)
	}
	return access, err
}
