package entrapg

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// managedIdentityOver makes a connector with the credential that a DSN chooses,
// which reaches IMDS through dial.
func managedIdentityOver(dial func(context.Context, string, string) (net.Conn, error)) *Connector {
	choice := credentialChoice{kind: mustKind("managedidentity"), cloud: publicCloud}
	c := defaultDriver.newConnector("host=db.example.com user=app entra_credential=managedidentity", nil, false)
	c.settings.account.source.credential = &lazyCredential{name: managedIdentity, create: func(*http.Client) (azcore.TokenCredential, error) {
		return choice.kind.make(choice, clientSettings{ClientOptions: azcore.ClientOptions{Transport: newHTTPClient(dial)}})
	}}
	return c
}

func mustKind(name string) *credentialKind {
	k, err := credentialKindOf(name)
	if err != nil {
		panic(err)
	}
	return k
}

func TestManagedIdentityOutsideAzureGivesUpInTimeAndSaysWhy(t *testing.T) {
	for _, name := range []string{"IDENTITY_ENDPOINT", "IMDS_ENDPOINT", "MSI_ENDPOINT"} {
		t.Setenv(name, "")
	}
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
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
				if !errors.As(err, &tokenErr) || !errors.As(err, &failed) || !strings.Contains(err.Error(), "no managed-identity endpoint answered") {
					t.Errorf("got %v, want a TokenError that says that no endpoint answered", err)
				}
				if ctx.Err() != nil {
					t.Error("the caller's deadline came first")
				}
			})
		})
	}
}

func TestManagedIdentityThatKeepsACallerWaitingIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := managedIdentityOver(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no managed-identity endpoint has answered") {
			t.Errorf("got %v, want the caller's deadline and what it waited for", err)
		}
		time.Sleep(imdsTimeout) // net/http lets a dial go on that nobody waits for
	})
}

func TestProxyIsNotAskedForIMDS(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.example.com:3128")
	transport := newHTTPClient(nil).Transport.(*http.Transport)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token", nil)
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err := transport.Proxy(request); proxy != nil || err != nil {
		t.Errorf("proxy %v, error %v", proxy, err)
	}
}

func TestConnectorsThatAreDroppedWithoutCloseLeaveNothingBehind(t *testing.T) {
	credential := &oneHour{}
	for range 10 {
		NewConnector("host=127.0.0.1 user=app sslmode=disable", WithCredential(credential))
	}
	shared := func() bool {
		defaultDriver.sources.mu.Lock()
		defer defaultDriver.sources.mu.Unlock()
		for key := range defaultDriver.sources.sources {
			if key.credential == credential {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Minute); shared(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatal("the shared token source is still there")
		}
	}
}
