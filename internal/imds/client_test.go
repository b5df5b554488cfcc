package imds_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/imds"
)

const proxy = "proxy.example.com:3128"

// TestMain sets the proxy before the first request: net/http reads the
// environment only once per process.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"HTTP_PROXY": "http://" + proxy, "NO_PROXY": "", "no_proxy": "", "REQUEST_METHOD": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

var (
	errDialed = errors.New("dialed")
	scope     = policy.TokenRequestOptions{Scopes: []string{"https://example.com/.default"}}
)

func noEnvironment(t *testing.T) {
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"} {
		t.Setenv(name, "")
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func TestClient_StopsInTimeWithoutEndpoint(t *testing.T) {
	noEnvironment(t)
	vanish := func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Hour):
			return nil, errDialed
		}
	}
	noRoute := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
	for name, test := range map[string]struct {
		dial  func(ctx context.Context, network, address string) (net.Conn, error)
		cause error
		took  time.Duration
	}{
		"packets vanish": {vanish, context.DeadlineExceeded, imds.Timeout},
		"no route":       {func(context.Context, string, string) (net.Conn, error) { return nil, noRoute }, noRoute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer time.Sleep(time.Hour) // net/http completes a dial that no request waits for
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := get(ctx, imds.NewClient(test.dial), "http://169.254.169.254/metadata")
				took := time.Since(start)
				if !errors.Is(err, test.cause) || !strings.Contains(err.Error(), imds.NoEndpoint) || took != test.took {
					t.Errorf("got %v after %v, want %v after %v", err, took, test.cause, test.took)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				defer time.Sleep(time.Hour) // net/http completes a dial that no request waits for
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
					ClientOptions: azcore.ClientOptions{Transport: imds.NewClient(test.dial)},
				})
				if err != nil {
					t.Fatal(err)
				}
				_, err = credential.GetToken(ctx, scope)
				if err == nil || !strings.Contains(err.Error(), imds.NoEndpoint) || time.Since(start) != test.took {
					t.Errorf("azidentity: got %v after %v, want NoEndpoint after %v", err, time.Since(start), test.took)
				}
			})
		})
	}
}

func TestClient_UsesGivenDialerForOtherHosts(t *testing.T) {
	noEnvironment(t)
	var deadline bool
	client := imds.NewClient(func(ctx context.Context, _, address string) (net.Conn, error) {
		_, deadline = ctx.Deadline()
		return nil, errDialed
	})
	err := get(t.Context(), client, "http://169.254.129.3/msi/token")
	if !errors.Is(err, errDialed) || strings.Contains(err.Error(), imds.NoEndpoint) || deadline {
		t.Errorf("got %v, deadline %t", err, deadline)
	}
}

func TestClient_SendsNoMetadataRequestThroughProxy(t *testing.T) {
	const appService = "http://172.16.0.4:8081/msi/token"
	for _, test := range []struct {
		url, identityEndpoint, msiEndpoint string
		direct                             bool
	}{
		{"http://169.254.169.254/metadata/identity/oauth2/token", "", "", true},
		{"http://169.254.129.3:8081/msi/token", "", "", true},
		{"http://[fe80::1%25eth0]/token", "", "", true},
		{"http://[::ffff:169.254.169.254]/token", "", "", true},
		{appService, appService, "", true},
		{appService, "", "http://172.16.0.4/other", true},
		{"http://identity.local/token", "http://Identity.Local:42356/msi/token", "", true},
		{appService, "", "", false},
		{appService, "http://172.16.0.5/", "::", false},
		{"http://login.example.com/", appService, appService, false},
		{"http://169.254.169.254.example.com/", "", "", false},
		{"http://169.255.1.1/", "", "", false},
	} {
		noEnvironment(t)
		t.Setenv("IDENTITY_ENDPOINT", test.identityEndpoint)
		t.Setenv("MSI_ENDPOINT", test.msiEndpoint)
		var dialed string
		client := imds.NewClient(func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = address
			return nil, errDialed
		})
		if err := get(t.Context(), client, test.url); !errors.Is(err, errDialed) {
			t.Errorf("%s: %v", test.url, err)
		}
		if direct := dialed != proxy; direct != test.direct {
			t.Errorf("%+v: dialed %s", test, dialed)
		}
	}
}

// Programs may set the variables after they have made the client.
func TestClient_SendsNoIdentityHeaderThroughProxy(t *testing.T) {
	noEnvironment(t)
	var dialed string
	client := imds.NewClient(func(_ context.Context, _, address string) (net.Conn, error) {
		dialed = address
		return nil, errDialed
	})
	t.Setenv("IDENTITY_ENDPOINT", "http://172.16.0.4:8081/msi/token")
	t.Setenv("IDENTITY_HEADER", "secret")
	credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := credential.GetToken(t.Context(), scope); err == nil {
		t.Error("no error")
	}
	if dialed != "172.16.0.4:8081" {
		t.Errorf("dialed %q", dialed)
	}
}

// Azure Arc and Service Fabric announce their endpoints in the same variable.
func TestClient_ReachesEveryAnnouncedEndpointDirectly(t *testing.T) {
	const endpoint = "http://172.16.0.4:2377/metadata/identity/oauth2/token"
	for name, environment := range map[string]map[string]string{
		"App Service": {"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": "secret"},
		"Azure Arc":   {"IDENTITY_ENDPOINT": endpoint, "IMDS_ENDPOINT": "http://172.16.0.4:2377"},
		"Azure ML":    {"MSI_ENDPOINT": endpoint, "MSI_SECRET": "secret"},
		"Cloud Shell": {"MSI_ENDPOINT": endpoint},
		"Service Fabric": {
			"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": "secret", "IDENTITY_SERVER_THUMBPRINT": strings.Repeat("ab", 20),
		},
	} {
		noEnvironment(t)
		t.Setenv("IDENTITY_SERVER_THUMBPRINT", "")
		for variable, value := range environment {
			if name == "Service Fabric" {
				value = strings.Replace(value, "http:", "https:", 1)
			}
			t.Setenv(variable, value)
		}
		var dialed string
		options := azcore.ClientOptions{
			Retry: policy.RetryOptions{MaxRetries: -1},
			Transport: imds.NewClient(func(_ context.Context, _, address string) (net.Conn, error) {
				dialed = address
				return nil, errDialed
			}),
		}
		new(imds.Monitor).Install(&options)
		credential, err := azidentity.NewManagedIdentityCredential(
			&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := credential.GetToken(t.Context(), scope); err == nil || dialed != "172.16.0.4:2377" {
			t.Errorf("%s: dialed %q, error %v", name, dialed, err)
		}
	}
}

func TestCheckEnvironment_RejectsPlaceholder(t *testing.T) {
	for _, test := range []struct {
		identity, header, msi, arc string
		want                       string
	}{
		{"", "", "", "", ""},
		{"http://172.16.0.4:8081/msi/token", "secret", "", "", ""},
		{"https://localhost:2377/metadata", "secret", "", "", ""},
		{"placeholder", "secret", "", "", "IDENTITY_ENDPOINT"},
		{"localhost:8081/msi/token", "secret", "", "", "IDENTITY_ENDPOINT"},
		{"placeholder", "", "", "http://localhost:40342", "IDENTITY_ENDPOINT"},
		{"placeholder", "", "", "", ""},
		{"", "", "placeholder", "", "MSI_ENDPOINT"},
		{"placeholder", "", "http://localhost:50342", "", ""},
	} {
		noEnvironment(t)
		t.Setenv("IDENTITY_ENDPOINT", test.identity)
		t.Setenv("IDENTITY_HEADER", test.header)
		t.Setenv("MSI_ENDPOINT", test.msi)
		t.Setenv("IMDS_ENDPOINT", test.arc)
		err := imds.CheckEnvironment()
		if (err != nil) != (test.want != "") || err != nil && !strings.HasPrefix(err.Error(), test.want+" is ") {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
