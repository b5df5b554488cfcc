package entrapgtest_test

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/golang-jwt/jwt/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

// managedIdentity returns azidentity's credential on a host. It uses IMDS unless the
// environment sets another endpoint.
func managedIdentity(t testing.TB, h *entrapgtest.Host, id azidentity.ManagedIDKind) azcore.TokenCredential {
	t.Helper()
	return must[*azidentity.ManagedIdentityCredential](t)(azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{
			ClientOptions: azcore.ClientOptions{Transport: h.Client(), Retry: policy.RetryOptions{MaxRetries: -1}}, ID: id,
		}))
}

func TestHost_ManagedIdentitiesGetTokens(t *testing.T) {
	s := share(t)
	one, two := s.Tenant.NewUserAssignedIdentity("one"), s.Tenant.NewUserAssignedIdentity("two")
	vm := s.Tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm1")
	stranger := s.Tenant.NewUserAssignedIdentity("stranger")
	for _, p := range []*entrapgtest.Principal{one, two, vm} {
		createRole(t, s, "", p)
	}
	all, single := s.Tenant.NewHost(one, vm, two), s.Tenant.NewHost(one)
	pair, none := s.Tenant.NewHost(one, two), s.Tenant.NewHost()

	const assigned = "No User Assigned or Delegated Managed Identity found"
	const unassigned = "the requested identity isn't assigned to this resource"
	for name, test := range map[string]struct {
		host             *entrapgtest.Host
		id               azidentity.ManagedIDKind
		appService, imds string // a role, or a part of the error
	}{
		"the system's":          {all, nil, "vm1", "vm1"},
		"by client ID":          {all, azidentity.ClientID(two.ClientID), "two", "two"},
		"by object ID":          {all, azidentity.ObjectID(two.ObjectID), "two", "two"},
		"by resource ID":        {all, azidentity.ResourceID(strings.ToUpper(two.ResourceID)), "two", "two"},
		"the only one":          {single, nil, assigned, "one"},
		"one of two, not named": {pair, nil, assigned, "Multiple user assigned identities exist"},
		"nothing":               {none, nil, assigned, "Identity not found"},
		"one of another host":   {all, azidentity.ClientID(stranger.ClientID), assigned, unassigned},
		"one by an unknown ID":  {all, azidentity.ResourceID("/subscriptions/none"), assigned, unassigned},
	} {
		for place, want := range map[string]string{"App Service": test.appService, "IMDS": test.imds} {
			t.Run(name+" on "+place, func(t *testing.T) {
				if place == "App Service" {
					setEnviron(t, test.host.Environ())
				}
				role := map[string]*entrapgtest.Principal{"one": one, "two": two, "vm1": vm}[want]
				// MSAL caches tokens by resource for the whole process.
				resource := "https://" + url.PathEscape(name+" on "+place) + ".example"
				got, err := ask(t, managedIdentity(t, test.host, test.id), resource)
				if role == nil {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("got %v, want %q", err, want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if left := time.Until(got.ExpiresOn); left < 59*time.Minute || left > time.Hour {
					t.Errorf("it expires in %v", left)
				}
				if oid := claim(t, got.Token, "oid"); oid != role.ObjectID {
					t.Errorf("the token is for %v, want %s", oid, role.Name)
				}
			})
		}
	}

	t.Run("log in", func(t *testing.T) {
		got, err := ask(t, managedIdentity(t, all, azidentity.ClientID(one.ClientID)), audience)
		if err != nil {
			t.Fatal(err)
		}
		if err := logIn(t, s, "one", got.Token); err != nil {
			t.Error(err)
		}
		setEnviron(t, all.Environ())
		if got, err = ask(t, managedIdentity(t, all, azidentity.ClientID(two.ClientID)), audience); err != nil {
			t.Fatal(err)
		}
		if err := logIn(t, s, "two", got.Token); err != nil {
			t.Error(err)
		}
	})
}

func claim(t testing.TB, token, name string) any {
	t.Helper()
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatal(err)
	}
	return claims[name]
}

func TestHost_RequestWithoutItsSecretIsRejected(t *testing.T) {
	s := share(t)
	mine, theirs := s.Tenant.NewUserAssignedIdentity("mine"), s.Tenant.NewUserAssignedIdentity("theirs")
	host, other := s.Tenant.NewHost(mine), s.Tenant.NewHost(theirs)
	environ := map[string]string{}
	for _, entry := range host.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		environ[name] = value
	}
	_, otherSecret, _ := strings.Cut(other.Environ()[1], "=")
	appService := environ["IDENTITY_ENDPOINT"]
	const imds = "http://169.254.169.254/metadata/identity/oauth2/token"
	direct := strings.Replace(appService, "/msi/token", "/metadata/identity/oauth2/token", 1)
	const version = "api-version=2019-08-01&"
	query := version + url.Values{"resource": {audience}, "client_id": {mine.ClientID}}.Encode()

	for name, test := range map[string]struct {
		client  *http.Client
		url     string
		header  [2]string
		status  int
		message string
		counts  int
	}{
		"App Service": {
			http.DefaultClient, appService + "?" + query,
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			200,
			`"expires_on":"`, 1,
		},
		"App Service, no header": {http.DefaultClient, appService + "?" + query, [2]string{}, 401, `"statusCode":401`, 0},
		"App Service, an empty header": {
			http.DefaultClient, appService + "?" + query, [2]string{"X-IDENTITY-HEADER", ""}, 401, `"statusCode":401`, 0,
		},
		"App Service, a wrong secret": {
			http.DefaultClient, appService + "?" + query, [2]string{"X-IDENTITY-HEADER", "guess"}, 401, `"statusCode":401`, 0,
		},
		"App Service, of another host": {
			http.DefaultClient, appService + "?" + query,
			[2]string{"X-IDENTITY-HEADER", otherSecret},
			400, `"statusCode":400`,
			1,
		},
		"App Service, no resource": {
			http.DefaultClient, appService + "?" + version,
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			400,
			"resource", 0,
		},
		"App Service, no version": {
			http.DefaultClient, appService + "?resource=x",
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			400,
			"api-version", 0,
		},
		"App Service, an old version": {
			http.DefaultClient, appService + "?resource=x&api-version=2017-09-01",
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			400, "api-version", 0,
		},
		"App Service, a future version": {
			http.DefaultClient, appService + "?resource=x&api-version=2999-01-01",
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			400, "api-version", 0,
		},
		"IMDS, a future version": {
			host.Client(), imds + "?resource=x&api-version=2999-01-01", [2]string{"Metadata", "true"}, 400, `"newest-versions":[`, 0,
		},
		"IMDS, no version": {
			host.Client(), imds + "?resource=x",
			[2]string{"Metadata", "true"},
			400,
			`{"error":"Bad request. api-version is invalid or was not specified in the request.`, 0,
		},
		"IMDS, an invalid version": {
			host.Client(), imds + "?resource=x&api-version=latest", [2]string{"Metadata", "true"}, 400, `"newest-versions":[`, 0,
		},
		"IMDS, no resource": {
			host.Client(), imds + "?" + version,
			[2]string{"Metadata", "true"},
			400,
			"Required query variable 'resource' is missing", 0,
		},
		"IMDS, metadata that is not true": {
			host.Client(), imds + "?" + query, [2]string{"Metadata", "1"}, 400, "Required metadata header not specified", 0,
		},
		"IMDS":                     {host.Client(), imds + "?" + query, [2]string{"Metadata", "true"}, 200, `"not_before":"`, 1},
		"IMDS, no metadata header": {host.Client(), imds + "?" + query, [2]string{}, 400, "bad_request_102", 0},
		"IMDS of another host": {
			other.Client(), imds + "?" + query,
			[2]string{"Metadata", "true"},
			400, `"error_description":"Identity not found"`,
			1,
		},
		"IMDS, without the client": {http.DefaultClient, direct + "?" + query, [2]string{"Metadata", "true"}, 401, "unauthorized", 0},
		"IMDS, with App Service's header": {
			http.DefaultClient, direct + "?" + query,
			[2]string{"X-IDENTITY-HEADER", environ["IDENTITY_HEADER"]},
			400,
			"bad_request_102", 0,
		},
		"the tenant through the client": {
			host.Client(), s.Tenant.URL() + "/contoso.example/v2.0/.well-known/openid-configuration",
			[2]string{},
			200,
			"token_endpoint", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, test.url, nil))
			if test.header[0] != "" {
				r.Header.Set(test.header[0], test.header[1])
			}
			before := s.Tenant.Requests()
			status, content, answered := send(t, test.client, r)
			body := string(content)
			if status != test.status || !strings.Contains(body, test.message) {
				t.Errorf("got %d %s, want %d %s", status, body, test.status, test.message)
			}
			if strings.Contains(body, "access_token") != (test.status == 200 && test.counts == 1) {
				t.Errorf("got %s", body)
			}
			if n := s.Tenant.Requests() - before; n != test.counts {
				t.Errorf("%d requests counted, want %d", n, test.counts)
			}
			if len(answered.Header) > 1 {
				t.Errorf("the response contains more of the request than expected: %v", answered.Header)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHost_AcceptsOnlyManagedIdentities(t *testing.T) {
	s := share(t)
	for name, p := range map[string]*entrapgtest.Principal{
		"a user":                       s.Tenant.NewUser("alice@contoso.example"),
		"a service principal":          s.Tenant.NewServicePrincipal("deployer"),
		"nil":                          nil,
		"a principal without a tenant": {Kind: entrapgtest.UserAssignedIdentity},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was accepted", name)
				}
			}()
			s.Tenant.NewHost(p)
		}()
	}
}

// withHost returns a host with two new identities. MSAL caches tokens by identity for the
// whole process, so each test needs its own.
func withHost(t testing.TB, s *entrapgtest.Server) (*entrapgtest.Host, *entrapgtest.Principal, *entrapgtest.Principal) {
	t.Helper()
	name := strings.NewReplacer("/", "-").Replace(t.Name())
	own := s.Tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/" + name)
	user := s.Tenant.NewUserAssignedIdentity("user of " + name)
	return s.Tenant.NewHost(own, user), own, user
}

func TestHost_FaultsHaveAzureStatuses(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	h, _, user := withHost(t, s)
	for fault, want := range map[entrapgtest.IdentityFault]struct {
		status  int
		message string
	}{
		entrapgtest.IdentityMissing:     {400, `{"error":"invalid_request","error_description":"Identity not found"}`},
		entrapgtest.IdentityStarting:    {404, "IMDS endpoint is updating"},
		entrapgtest.IdentityUpdating:    {410, "IMDS is going through updates"},
		entrapgtest.IdentityThrottled:   {429, "Throttle limit reached"},
		entrapgtest.IdentityServerError: {500, "Failed to retrieve token from the Active directory"},
		entrapgtest.IdentityOK:          {200, "access_token"},
	} {
		s.SetFaults(entrapgtest.Faults{Identity: fault})
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x&client_id="+user.ClientID, nil))
		r.Header.Set("Metadata", "true")
		response, err := h.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body := must[[]byte](t)(io.ReadAll(response.Body))
		response.Body.Close()
		status := response.StatusCode
		if status != want.status || !strings.Contains(string(body), want.message) ||
			(status == 429) != (response.Header.Get("Retry-After") == "1") {
			t.Errorf("%d: %d %s, want %d %s", fault, status, body, want.status, want.message)
		}
		if _, err := ask(t, user, "x"); err != nil {
			t.Errorf("%d reaches Entra: %v", fault, err)
		}

		// azidentity retries until the endpoint is available, but not for a missing identity.
		s.SetFaults(entrapgtest.Faults{Identity: fault})
		credential := must[*azidentity.ManagedIdentityCredential](t)(
			azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
				ClientOptions: azcore.ClientOptions{
					Transport: h.Client(),
					Retry:     policy.RetryOptions{MaxRetries: 1000, RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Second},
				},
				ID: azidentity.ClientID(user.ClientID),
			}),
		)
		before := s.Tenant.Requests()
		done := make(chan error, 1)
		go func() {
			_, err := ask(t, credential, "https://"+strconv.Itoa(int(fault))+".fault.example")
			done <- err
		}()
		if status > 400 {
			for s.Tenant.Requests() < before+2 && len(done) == 0 {
				time.Sleep(time.Millisecond)
			}
			s.SetFaults(entrapgtest.Faults{})
		}
		if err := <-done; (err == nil) != (status != 400) {
			t.Errorf("%d: %v", fault, err)
		}
	}
}

func TestHost_AzureArcChecksKeyFile(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		t.Skip("clients do not support Azure Arc on " + runtime.GOOS)
	}
	s := startFront(t, entrapgtest.Config{})
	h, own, user := withHost(t, s)
	environ, err := h.ArcEnviron()
	if err != nil {
		t.Skip(err)
	}
	setEnviron(t, environ)
	createRole(t, s, "", own)
	got, err := ask(t, managedIdentity(t, h, nil), audience)
	if err != nil {
		t.Fatal(err)
	}
	if err := logIn(t, s, own.Name, got.Token); err != nil {
		t.Error(err)
	}
	for name, id := range map[string]azidentity.ManagedIDKind{
		"client": azidentity.ClientID(user.ClientID), "object": azidentity.ObjectID(user.ObjectID),
		"resource": azidentity.ResourceID(user.ResourceID),
	} {
		got, err := ask(t, managedIdentity(t, h, id), "https://"+name+".arc.example")
		if err != nil || claim(t, got.Token, "oid") != user.ObjectID {
			t.Errorf("by %s ID: %v", name, err)
		}
	}

	endpoint := strings.TrimPrefix(environ[0], "IDENTITY_ENDPOINT=") + "?api-version=2020-06-01&resource=x"
	request := func(header ...string) (int, string, string) {
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body := must[[]byte](t)(io.ReadAll(response.Body))
		return response.StatusCode, string(body), strings.TrimPrefix(response.Header.Get("WWW-Authenticate"), "Basic realm=")
	}
	defer http.DefaultClient.CloseIdleConnections()
	status, _, path := request("Metadata", "true")
	key := string(must[[]byte](t)(os.ReadFile(path)))
	if status != 401 || filepath.Ext(path) != ".key" {
		t.Errorf("the challenge: %d %s", status, path)
	}
	for _, test := range []struct {
		header []string
		status int
	}{
		{nil, 400}, // no Metadata
		{[]string{"Authorization", "Basic " + key}, 400},
		{[]string{"Metadata", "true", "Authorization", "Basic guess"}, 401},
		{[]string{"Metadata", "true", "Authorization", key}, 401},
		{[]string{"Metadata", "true", "Authorization", "Basic " + key}, 200},
		{[]string{"Metadata", "true", "Authorization", "Basic " + key}, 401}, // a second time
	} {
		if status, body, _ := request(test.header...); status != test.status {
			t.Errorf("%q: %d %s, want %d", test.header, status, body, test.status)
		}
	}
	const most = 256 // key files that exist at a time
	_, _, oldest := request("Metadata", "true")
	for range most - 1 {
		request("Metadata", "true")
	}
	if _, err := os.Stat(oldest); err != nil {
		t.Errorf("with %d key files: %v", most, err)
	}
	_, _, left := request("Metadata", "true")
	if _, err := os.Stat(oldest); err == nil {
		t.Errorf("more than %d key files exist", most)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{path, left} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was not removed", path)
		}
	}
}

func TestHost_ServiceFabricIsVerifiedByThumbprint(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	h, own, _ := withHost(t, s)
	createRole(t, s, "", own)
	setEnviron(t, h.ServiceFabricEnviron())
	credential := func() azcore.TokenCredential { // it trusts no certificate authority
		return must[*azidentity.ManagedIdentityCredential](t)(
			azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
				ClientOptions: azcore.ClientOptions{
					Transport: &http.Client{Transport: &http.Transport{}},
					Retry:     policy.RetryOptions{MaxRetries: -1},
				},
			}),
		)
	}
	got, err := ask(t, credential(), audience+"/") // a resource that other tests do not cache
	if err != nil {
		t.Fatal(err)
	}
	if claim(t, got.Token, "oid") != own.ObjectID {
		t.Errorf("the token is for %v", claim(t, got.Token, "oid"))
	}
	t.Setenv("IDENTITY_HEADER", "guess")
	if _, err := ask(t, credential(), "https://guess.fabric.example"); err == nil ||
		!strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong secret: %v", err)
	}
	t.Setenv("IDENTITY_SERVER_THUMBPRINT", strings.Repeat("0", 40))
	if _, err := ask(t, credential(), "https://thumbprint.fabric.example"); err == nil ||
		!strings.Contains(err.Error(), "thumbprint") {
		t.Errorf("with another thumbprint: %v", err)
	}
}
