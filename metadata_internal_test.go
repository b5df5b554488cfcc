package entrapg

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/imds"
	"github.com/entrapg/entrapg/internal/token"
)

// noMetadata unsets the variables that contain metadata endpoints.
func noMetadata(t *testing.T) {
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"} {
		t.Setenv(name, "")
	}
}

// An endpoint is a metadata endpoint. It counts requests.
type endpoint struct {
	answer func() (status int, header, body string) // nil if it never answers

	requests atomic.Int64
}

// dial connects to the endpoint through a pipe, as synctest needs.
func (e *endpoint) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		in := bufio.NewReader(server)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		e.requests.Add(1)
		if e.answer == nil {
			in.ReadByte() // until the client closes the connection
			return
		}
		status, header, body := e.answer()
		if header != "" {
			header += "\r\n"
		}
		fmt.Fprintf(server, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s",
			status, http.StatusText(status), len(body), header, body)
	}()
	return client, nil
}

func always(status int, header, body string) func() (int, string, string) {
	return func() (int, string, string) { return status, header, body }
}

const (
	asJSON = "Content-Type: application/json; charset=utf-8"
	asHTML = "Content-Type: text/html"
	asText = "Content-Type: text/plain"
)

// request requests a token of a managed identity from e, and returns how long that took.
func (e *endpoint) request(ctx context.Context, resource string) (time.Duration, error) {
	c := managedIdentityOver(e.dial)
	defer c.Close()
	key := c.config.identity
	key.scope = resource // azidentity's cache is shared by the whole process
	c.identity = newIdentity(key, c.identity.credential)
	defer c.identity.close()
	start := time.Now()
	_, _, _, err := c.identity.get(ctx, c.request(nil), "app")
	return time.Since(start), err
}

func TestCredential_UnavailableMetadataServiceIsRetried(t *testing.T) {
	noMetadata(t)
	for name, test := range map[string]struct {
		status       int
		header, body string
	}{
		"updated":       {http.StatusGone, asJSON, `{"error":"gone"}`},
		"updated, bare": {http.StatusGone, "", ""},
		"failing":       {http.StatusInternalServerError, asJSON, `{"error":"server_error"}`},
		"failing host":  {http.StatusServiceUnavailable, asHTML + "\r\nServer: Microsoft-HTTPAPI/2.0", "<html>"},
		"starting":      {http.StatusNotFound, asJSON, `{"error":"not_found"}`},
		"overloaded":    {http.StatusTooManyRequests, asJSON, `{"error":"too many requests"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				e := &endpoint{answer: func() (int, string, string) {
					if time.Since(start) < 70*time.Second {
						return test.status, test.header, test.body
					}
					return http.StatusOK, asJSON, `{"access_token":"late","expires_in":"86400","resource":"x","token_type":"Bearer"}`
				}}
				took, err := e.request(t.Context(), "https://"+strings.ReplaceAll(name, " ", "")+".example.com/.default")
				if err != nil || took < 70*time.Second || took > 80*time.Second {
					t.Errorf("error %v after %v", err, took)
				}
				if n := e.requests.Load(); n > 15 {
					t.Errorf("%d requests", n)
				}
			})
		})
		t.Run(name+" for long", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: always(test.status, test.header, test.body)}
				took, err := e.request(t.Context(), "https://example.com/.default")
				var failed *azidentity.AuthenticationFailedError
				if !errors.As(err, &failed) || failed.RawResponse.StatusCode != test.status || took < 70*time.Second ||
					took > imds.MaxWait {
					t.Errorf("error %v after %v", err, took)
				}
				checkStatus(t, err, test.status)
			})
		})
		t.Run(name+", and the caller leaves", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: always(test.status, test.header, test.body)}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				took, err := e.request(ctx, "https://example.com/.default")
				if !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
					t.Errorf("error %v after %v", err, took)
				}
				checkStatus(t, err, test.status)
			})
		})
	}
}

// checkStatus fails the test unless the error has the status, and does not claim that the
// machine is outside Azure.
func checkStatus(t *testing.T, err error, status int) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d %s", status, http.StatusText(status))) ||
		strings.Contains(err.Error(), imds.NoEndpoint) {
		t.Errorf("got %v, want status %d", err, status)
	}
}

func TestCredential_ForeignMetadataServiceFailsAtOnce(t *testing.T) {
	noMetadata(t)
	for name, test := range map[string]struct {
		status       int
		header, body string
	}{
		"a page":                     {http.StatusOK, asHTML, "<html>welcome</html>"},
		"an error page":              {http.StatusInternalServerError, asHTML, "<html>"},
		"an error page of a gateway": {http.StatusBadGateway, asHTML, "<html>"},
		"a page for 404":             {http.StatusNotFound, asHTML, "<html>"},
		"404":                        {http.StatusNotFound, asText, "404 page not found"},
		"404 without a body":         {http.StatusNotFound, "", ""},
		"401 without a body":         {http.StatusUnauthorized, "", ""},
		"403 of a gateway":           {http.StatusForbidden, asText, "denied destination"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &endpoint{answer: always(test.status, test.header, test.body)}
				took, err := e.request(t.Context(), "https://example.com/.default")
				if took != 0 || e.requests.Load() != 1 {
					t.Errorf("%d requests in %v", e.requests.Load(), took)
				}
				checkStatus(t, err, test.status)
			})
		})
	}
}

func TestCredential_DefaultContinuesAfterForeignMetadataService(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the Azure CLI is a shell script")
	}
	noMetadata(t)
	for _, name := range []string{
		"AZURE_TOKEN_CREDENTIALS", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
		"AZURE_FEDERATED_TOKEN_FILE",
	} {
		t.Setenv(name, "") // restores it
		os.Unsetenv(name)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\necho '{\"accessToken\": \"of-az\", \"expires_on\": 4102444800, \"tokenType\": \"Bearer\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, e := range map[string]*endpoint{
		"404":           {answer: always(http.StatusNotFound, asText, "")},
		"401":           {answer: always(http.StatusUnauthorized, "", "")},
		"a page":        {answer: always(http.StatusOK, asHTML, "<html>")},
		"an error page": {answer: always(http.StatusInternalServerError, asHTML, "<html>")},
	} {
		choice := credentialChoice{kind: defaultKind, service: publicService}
		i := newIdentity(identityKey{scope: "https://example.com/.default"}, choice.source(e.dial))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, _, _, err := i.get(ctx, token.Request{Log: quiet}, "app")
		cancel()
		if err != nil || got.Secret() != "of-az" {
			t.Errorf("%s: %v", name, err)
		}
		i.close()
	}
}

func TestCredential_DefaultReportsUnavailableMetadataService(t *testing.T) {
	noMetadata(t)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod") // without tools, and with a probe
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"} {
		t.Setenv(name, "") // restores it
		os.Unsetenv(name)
	}
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: always(http.StatusGone, asJSON, `{"error":"gone"}`)}
		i := newIdentity(
			identityKey{scope: "https://example.com/.default"},
			credentialChoice{kind: defaultKind, service: publicService}.source(e.dial),
		)
		defer i.close()
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		_, _, _, err := i.get(ctx, token.Request{Log: quiet}, "app")
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
			t.Errorf("got %v before the caller's deadline", err)
		}
		checkStatus(t, err, http.StatusGone)
	})
}

func TestCredential_SilentMetadataServiceIsNotReportedMissing(t *testing.T) {
	noMetadata(t)
	synctest.Test(t, func(t *testing.T) {
		took, err := (&endpoint{}).request(t.Context(), "https://example.com/.default")
		if !errors.Is(err, context.DeadlineExceeded) || took != requestTimeout {
			t.Errorf("error %v after %v", err, took)
		}
		if err == nil || strings.Contains(err.Error(), imds.NoEndpoint) ||
			!strings.Contains(err.Error(), "accepts the connection") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCredential_PlaceholderEndpointIsNamedInError(t *testing.T) {
	noMetadata(t)
	t.Setenv("IDENTITY_ENDPOINT", "placeholder")
	t.Setenv("IDENTITY_HEADER", "placeholder")
	_, err := (&endpoint{}).request(t.Context(), "https://example.com/.default")
	var failed *TokenError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), `IDENTITY_ENDPOINT is "placeholder"`) {
		t.Errorf("got %v", err)
	}
}

// On AKS, identity bindings set a proxy, which gets the token requests.
func TestCredential_WorkloadIdentityUsesTheClustersProxy(t *testing.T) {
	var asked atomic.Bool
	proxy := newTLSServer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		http.Error(w, "no", http.StatusBadRequest)
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("assertion"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AZURE_CLIENT_ID": "00000000-0000-0000-0000-00000000000a", "AZURE_TENANT_ID": "00000000-0000-0000-0000-00000000000b",
		"AZURE_FEDERATED_TOKEN_FILE": file, "AZURE_KUBERNETES_TOKEN_PROXY": proxy.url, "AZURE_KUBERNETES_CA_DATA": proxy.ca,
		"AZURE_AUTHORITY_HOST": "https://login.example.com/",
	} {
		t.Setenv(name, value)
	}
	choice := credentialChoice{kind: mustKind("workloadidentity"), service: publicService}
	i := newIdentity(
		identityKey{scope: "https://example.com/.default"},
		choice.source(func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("Entra is not reachable directly")
		}),
	)
	defer i.close()
	if _, _, _, err := i.get(t.Context(), token.Request{Log: quiet}, "app"); err == nil || !asked.Load() {
		t.Errorf("the proxy got the request: %t, error %v", asked.Load(), err)
	}
}

// newTLSServer starts a server, and returns its URL and certificate.
func newTLSServer(t *testing.T, handler http.HandlerFunc) (s struct{ url, ca string }) {
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return s
}
