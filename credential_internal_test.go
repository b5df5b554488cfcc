package entrapg

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/imds"
)

// managedIdentityOver returns a connector with entra_credential=managedidentity that dials IMDS with
// dial.
func managedIdentityOver(dial dialFunc) *Connector {
	choice := credentialChoice{kind: mustKind("managedidentity"), service: publicService}
	c := NewConnector("host=db.example.com user=app entra_credential=managedidentity")
	c.identity = newIdentity(c.config.identity, choice.source(dial))
	return c
}

func mustKind(name string) *credentialKind {
	k, err := parseCredentialKind(name)
	if err != nil {
		panic(err)
	}
	return k
}

func TestCredential_ManagedIdentityOutsideAzureFailsInTime(t *testing.T) {
	for _, name := range []string{"IDENTITY_ENDPOINT", "IMDS_ENDPOINT", "MSI_ENDPOINT"} {
		t.Setenv(name, "")
	}
	for name, dial := range map[string]dialFunc{
		"packets vanish": func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"no route": func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := managedIdentityOver(dial)
				defer c.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := c.Connect(ctx)
				var tokenErr *TokenError
				var failed *azidentity.AuthenticationFailedError
				if !errors.As(err, &tokenErr) || !errors.As(err, &failed) || !strings.Contains(err.Error(), imds.NoEndpoint) {
					t.Errorf("got %v, want a TokenError that reports that no endpoint answered", err)
				}
				if ctx.Err() != nil {
					t.Error("the caller's deadline expired first")
				}
			})
		})
	}
}

func TestCredential_ManagedIdentityTimeoutNamesCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := managedIdentityOver(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), imds.NoEndpoint) {
			t.Errorf("got %v, want the caller's deadline and that no endpoint answered", err)
		}
		time.Sleep(imds.Timeout) // net/http finishes a dial after its request is canceled
	})
}

func TestCredential_InteractiveLoginHasLongerTimeout(t *testing.T) {
	for _, test := range []struct {
		credential azcore.TokenCredential
		want       time.Duration
	}{
		{&azidentity.DeviceCodeCredential{}, 5 * time.Minute},
		{&azidentity.InteractiveBrowserCredential{}, 5 * time.Minute},
		{&azidentity.ClientSecretCredential{}, 30 * time.Second},
		{&oneHour{}, 30 * time.Second},
	} {
		s := sourceOf(test.credential)
		if s.timeout != test.want || s.wait() != test.want {
			t.Errorf("%T: a request takes at most %v and Connect waits %v, want %v",
				test.credential, s.timeout, s.wait(), test.want)
		}
	}
}
