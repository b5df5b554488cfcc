package entrapgtest_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/entrapg/entrapg/entrapgtest"
)

// publicClient is the application ID of the Azure CLI.
const publicClient = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// withoutRetries returns the tenant's client options, without retries.
func withoutRetries(tenant *entrapgtest.Tenant) azcore.ClientOptions {
	options := tenant.ClientOptions()
	options.Retry.MaxRetries = -1
	return options
}

func secretCredential(
	t testing.TB, tenant *entrapgtest.Tenant, tenantID, clientID, secret string,
) azcore.TokenCredential {
	t.Helper()
	return must[*azidentity.ClientSecretCredential](t)(azidentity.NewClientSecretCredential(tenantID, clientID, secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: withoutRetries(tenant), DisableInstanceDiscovery: true}))
}

func certificateCredential(
	t testing.TB, p *entrapgtest.Principal, tenant *entrapgtest.Tenant, c *x509.Certificate, key crypto.PrivateKey,
) azcore.TokenCredential {
	t.Helper()
	return must[*azidentity.ClientCertificateCredential](t)(azidentity.NewClientCertificateCredential(tenant.ID,
		p.ClientID, []*x509.Certificate{c}, key,
		&azidentity.ClientCertificateCredentialOptions{
			ClientOptions:            withoutRetries(tenant),
			DisableInstanceDiscovery: true,
		}))
}

func assertionCredential(
	t testing.TB, p *entrapgtest.Principal, tenant *entrapgtest.Tenant, assertion func() (string, error),
) azcore.TokenCredential {
	t.Helper()
	return must[*azidentity.ClientAssertionCredential](t)(azidentity.NewClientAssertionCredential(tenant.ID, p.ClientID,
		func(context.Context) (string, error) { return assertion() },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: withoutRetries(tenant), DisableInstanceDiscovery: true}))
}

// The credential is deprecated, but EnvironmentCredential still uses it.
func userCredential(
	t testing.TB, tenant *entrapgtest.Tenant, clientID, name, password string,
) *azidentity.UsernamePasswordCredential { //nolint:staticcheck // see above
	t.Helper()
	options := &azidentity.UsernamePasswordCredentialOptions{ //nolint:staticcheck // see above
		ClientOptions: withoutRetries(tenant), DisableInstanceDiscovery: true,
	}
	return must[*azidentity.UsernamePasswordCredential](t)( //nolint:staticcheck // see above
		azidentity.NewUsernamePasswordCredential(tenant.ID, clientID, name, password, options))
}

func environmentCredential(t *testing.T, p *entrapgtest.Principal, tenant *entrapgtest.Tenant) azcore.TokenCredential {
	t.Helper()
	setEnviron(t, p.Environ())
	options := withoutRetries(tenant)
	options.Cloud.ActiveDirectoryAuthorityHost = "" // so that AZURE_AUTHORITY_HOST applies
	return must[*azidentity.EnvironmentCredential](t)(azidentity.NewEnvironmentCredential(
		&azidentity.EnvironmentCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true}))
}

// setEnviron sets variables, and unsets others that could take precedence.
func setEnviron(t *testing.T, environ []string) {
	for _, name := range []string{"AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME"} {
		t.Setenv(name, "")
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
}

// newUser adds a user of a tenant that tests share. They sign in by name, which must be
// unique.
func newUser(tenant *entrapgtest.Tenant) *entrapgtest.Principal {
	return tenant.NewUser(strings.ToLower(rand.Text()) + "@contoso.example")
}

func ask(t testing.TB, credential azcore.TokenCredential, resource string) (azcore.AccessToken, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
}

// send sends a request. It returns the status and the body of the response, and the request that the
// response refers to.
func send(t testing.TB, client policy.Transporter, r *http.Request) (int, []byte, *http.Request) {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, must[[]byte](t)(io.ReadAll(response.Body)), response.Request
}

// selfSigned returns a self-signed certificate, as registered with applications.
func selfSigned(t testing.TB) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "deployer"},
		NotAfter: time.Now().Add(time.Hour),
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
}

func TestTenant_AzidentityCredentialsGetAcceptedTokens(t *testing.T) {
	s := share(t)
	tenant := s.Tenant
	app := tenant.NewServicePrincipal("deployer")
	alice := newUser(tenant)
	pod := tenant.NewUserAssignedIdentity("pod")
	registered, key := selfSigned(t)
	spare, _ := selfSigned(t)
	app.Certificates = []*x509.Certificate{spare, registered}
	for _, p := range []*entrapgtest.Principal{app, alice, pod} {
		createRole(t, s, "", p)
	}

	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(must[string](t)(pod.FederatedToken())), 0o600); err != nil {
		t.Fatal(err)
	}
	workload := must[*azidentity.WorkloadIdentityCredential](t)(azidentity.NewWorkloadIdentityCredential(
		&azidentity.WorkloadIdentityCredentialOptions{
			ClientID: pod.ClientID, TenantID: tenant.ID, TokenFilePath: file, ClientOptions: withoutRetries(tenant),
			DisableInstanceDiscovery: true,
		}))
	for name, test := range map[string]struct {
		credential func(*testing.T) azcore.TokenCredential
		role       *entrapgtest.Principal
	}{
		"client secret": {func(t *testing.T) azcore.TokenCredential {
			return secretCredential(t, tenant, tenant.ID, app.ClientID, app.ClientSecret)
		}, app},
		"client secret, tenant by domain": {func(t *testing.T) azcore.TokenCredential {
			return secretCredential(t, tenant, "Contoso.Example", app.ClientID, app.ClientSecret)
		}, app},
		"certificate": {func(t *testing.T) azcore.TokenCredential {
			return certificateCredential(t, app, tenant, registered, key)
		}, app},
		"assertion": {func(t *testing.T) azcore.TokenCredential {
			return assertionCredential(t, app, tenant, app.FederatedToken)
		}, app},
		"workload identity": {func(*testing.T) azcore.TokenCredential { return workload }, pod},
		"environment, of a service principal": {func(t *testing.T) azcore.TokenCredential {
			return environmentCredential(t, app, tenant)
		}, app},
		"environment, of a user": {func(t *testing.T) azcore.TokenCredential {
			return environmentCredential(t, alice, tenant)
		}, alice},
	} {
		t.Run(name, func(t *testing.T) {
			credential, before := test.credential(t), tenant.RequestsFor(audience)
			token, err := ask(t, credential, audience)
			if err != nil {
				t.Fatal(err)
			}
			if err := logIn(t, s, test.role.Name, token.Token); err != nil {
				t.Error(err)
			}
			if left := time.Until(token.ExpiresOn); left < 59*time.Minute || left > time.Hour {
				t.Errorf("it expires in %v", left)
			}
			again, err := ask(t, credential, audience)
			if err != nil || again.Token != token.Token {
				t.Errorf("the token was not cached: error %v", err)
			}
			if n := tenant.RequestsFor(audience) - before; n != 1 {
				t.Errorf("%d requests counted, want 1", n)
			}
		})
	}
}

func TestTenant_RejectsRequestsWithEntraMessages(t *testing.T) {
	tenant := share(t).Tenant
	app, other := tenant.NewServicePrincipal("deployer"), tenant.NewServicePrincipal("other")
	pod := tenant.NewUserAssignedIdentity("pod")
	vm := tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm1")
	alice := newUser(tenant)
	registered, key := selfSigned(t)
	foreign, foreignKey := selfSigned(t)
	app.Certificates = []*x509.Certificate{registered}
	user := func(name, password string) azcore.TokenCredential {
		return userCredential(t, tenant, publicClient, name, password)
	}
	// signed returns an assertion of app, with a change.
	signed := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims)) func() (string, error) {
		return func() (string, error) {
			sum := sha1.Sum(registered.Raw)
			claims := jwt.MapClaims{
				"iss": app.ClientID, "sub": app.ClientID, "exp": time.Now().Add(time.Minute).Unix(),
				"aud": tenant.URL() + "/" + tenant.ID + "/oauth2/v2.0/token",
			}
			change(claims)
			token := jwt.NewWithClaims(method, claims)
			token.Header["x5t"] = base64.RawURLEncoding.EncodeToString(sum[:])
			return token.SignedString(key)
		}
	}
	set := func(name string, value any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = value } }
	federated := must[string](t)(app.FederatedToken())
	altered := func(change func(jwt.MapClaims)) func() (string, error) {
		return func() (string, error) {
			return forge(t, federated, jwt.SigningMethodRS256, foreignKey, change), nil
		}
	}

	if _, err := ask(t,
		assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, set("jti", "1"))), audience); err != nil {
		t.Fatalf("a valid assertion: %v", err)
	}
	for name, test := range map[string]struct {
		credential azcore.TokenCredential
		status     int
		code, kind string
	}{
		"a wrong secret": {
			secretCredential(t, tenant, tenant.ID, app.ClientID, "guess"), 401, "AADSTS7000215", "invalid_client",
		},
		"another's secret": {
			secretCredential(t, tenant, tenant.ID, app.ClientID, other.ClientSecret), 401, "AADSTS7000215", "invalid_client",
		},
		"a secret for an identity": {
			secretCredential(t, tenant, tenant.ID, pod.ClientID, "guess"), 401, "AADSTS7000215", "invalid_client",
		},
		"an unknown application": {
			secretCredential(t, tenant, tenant.ID, tenant.ID, app.ClientSecret), 400, "AADSTS700016", "unauthorized_client",
		},
		"an unknown tenant": {
			secretCredential(t, tenant, app.ClientID, app.ClientID, app.ClientSecret), 400, "AADSTS90002", "invalid_tenant",
		},
		"a certificate not registered": {
			certificateCredential(t, app, tenant, foreign, foreignKey), 401, "AADSTS700027", "invalid_client",
		},
		"a certificate of another": {certificateCredential(t, other, tenant, registered, key), 401, "AADSTS700027", "invalid_client"},
		"a signature of another key": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, foreignKey, set("jti", "1"))), 401,
			"AADSTS700027", "invalid_client",
		},
		"no signature": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, set("jti", "1"))),
			401, "AADSTS700027", "invalid_client",
		},
		"an assertion for another audience": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, set("aud", "https://login.example/token"))),
			401, "AADSTS700027", "invalid_client",
		},
		"an assertion with another subject": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, set("sub", other.ClientID))), 401,
			"AADSTS700027", "invalid_client",
		},
		"an assertion without exp": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, func(c jwt.MapClaims) { delete(c, "exp") })),
			401, "AADSTS700027", "invalid_client",
		},
		"an assertion with exp out of range": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, set("exp", 1e300))), 401, "AADSTS700027",
			"invalid_client",
		},
		"an expired assertion": {
			assertionCredential(t, app, tenant, signed(jwt.SigningMethodRS256, key, set("exp", time.Now().Add(-time.Hour).Unix()))),
			401, "AADSTS700024", "invalid_client",
		},
		"a malformed assertion": {
			assertionCredential(t, app, tenant, func() (string, error) { return "hunter2", nil }), 401, "AADSTS50027",
			"invalid_client",
		},
		"another's federated token": {assertionCredential(t, pod, tenant, app.FederatedToken), 400, "AADSTS70021", "invalid_request"},
		"a forged federated token":  {assertionCredential(t, app, tenant, altered(nil)), 400, "AADSTS70021", "invalid_request"},
		"a forged federated token of another": {
			assertionCredential(t, pod, tenant, altered(set("sub", "system:serviceaccount:default:"+pod.ObjectID))), 400,
			"AADSTS70021", "invalid_request",
		},
		"a federated token for a VM": {assertionCredential(t, vm, tenant, app.FederatedToken), 400, "AADSTS70021", "invalid_request"},
		"an access token as an assertion": {
			assertionCredential(t, app, tenant, func() (string, error) { return token(t, app, audience).Token, nil }), 400,
			"AADSTS70021", "invalid_request",
		},
		"a wrong password": {user(alice.Name, "guess"), 400, "AADSTS50126", "invalid_grant"},
		"an unknown user":  {user("bob@contoso.example", alice.Password), 400, "AADSTS50034", "invalid_grant"},
		"a guest with a name of the tenant": {
			user(tenant.NewGuest("bob@fabrikam.example").Name, ""), 400, "AADSTS900144", "invalid_request",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, test.credential, audience)
			var failure *azidentity.AuthenticationFailedError
			if !errors.As(err, &failure) {
				t.Fatalf("got %v, want a rejection", err)
			}
			if !strings.Contains(err.Error(), test.code+": ") {
				t.Errorf("got %v, want %s", err, test.code)
			}
			if failure.RawResponse == nil || failure.RawResponse.StatusCode != test.status ||
				!strings.Contains(err.Error(), `"error": "`+test.kind+`"`) {
				t.Errorf("got %v, want status %d and %s", err, test.status, test.kind)
			}
			for _, secret := range []string{app.ClientSecret, other.ClientSecret, alice.Password, federated} {
				if strings.Contains(err.Error(), secret) {
					t.Error("the error shows a secret")
				}
			}
		})
	}
	if _, err := vm.FederatedToken(); err == nil {
		t.Error("a virtual machine's identity got a federated token")
	}
}

func TestTenant_TokenEndpointWorksWithoutSDK(t *testing.T) {
	tenant := share(t).Tenant
	app, alice := tenant.NewServicePrincipal("deployer"), newUser(tenant)
	client := tenant.ClientOptions().Transport
	endpoint := tenant.URL() + "/" + strings.ToUpper(tenant.ID) + "/oauth2/v2.0/token"
	post := func(t *testing.T, form url.Values, user, password string) (int, map[string]any) {
		t.Helper()
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint,
			strings.NewReader(form.Encode())))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("client-request-id", "0a0a0a0a-1111-2222-3333-444444444444")
		if user != "" {
			r.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
		}
		status, content, _ := send(t, client, r)
		var body map[string]any
		if err := json.Unmarshal(content, &body); err != nil {
			t.Fatal(err)
		}
		return status, body
	}
	form := func(changes ...string) url.Values {
		f := url.Values{
			"grant_type": {"client_credentials"}, "client_id": {app.ClientID},
			"client_secret": {app.ClientSecret}, "scope": {audience + "/.default"},
		}
		for i := 0; i < len(changes); i += 2 {
			f.Set(changes[i], changes[i+1])
		}
		return f
	}
	user := func(clientID string) url.Values {
		return form("grant_type", "password", "client_id", clientID, "client_secret", "", "username",
			strings.ToUpper(alice.Name), "password", alice.Password)
	}
	for name, test := range map[string]struct {
		form  url.Values
		basic bool
		code  float64 // 0: a token
	}{
		"secret in the body":                   {form: form()},
		"Basic authentication":                 {form: form("client_id", "", "client_secret", ""), basic: true},
		"password":                             {form: user(publicClient)},
		"password with an unregistered client": {user("public"), false, 700016},
		"password with a confidential client":  {user(app.ClientID), false, 7000218},
		"no grant":                             {form("grant_type", ""), false, 900144},
		"no client":                            {form("client_id", ""), false, 900144},
		"no scope":                             {form("scope", ""), false, 900144},
		"another grant":                        {form("grant_type", "refresh_token"), false, 70003},
		"no credential":                        {form("client_secret", ""), false, 7000218},
		"a scope without .default":             {form("scope", audience), false, 70011},
		"two scopes":                           {form("scope", audience+"/.default https://management.azure.com/.default"), false, 70011},
		"empty request":                        {url.Values{}, false, 900144},
	} {
		t.Run(name, func(t *testing.T) {
			id, secret := "", ""
			if test.basic {
				id, secret = app.ClientID, app.ClientSecret
			}
			before := tenant.Requests()
			status, body := post(t, test.form, id, secret)
			if n := tenant.Requests() - before; n != 1 {
				t.Errorf("%d requests counted, want 1", n)
			}
			if test.code == 0 {
				life, _ := body["expires_in"].(float64)
				if status != http.StatusOK || body["token_type"] != "Bearer" || body["access_token"] == nil ||
					life < 3500 || life > 3600 {
					t.Errorf("got %d %v", status, body)
				}
				return
			}
			codes, _ := body["error_codes"].([]any)
			if len(codes) != 1 || codes[0] != test.code || status < 400 ||
				body["correlation_id"] != "0a0a0a0a-1111-2222-3333-444444444444" || body["trace_id"] == nil {
				t.Errorf("got %d %v, want %v", status, body, test.code)
			}
		})
	}
}

func TestTenant_PasswordGrantTokenNamesUserAndClient(t *testing.T) {
	tenant := share(t).Tenant
	erin, client := newUser(tenant), uuid.NewString()
	credential := userCredential(t, tenant, client, erin.Name, erin.Password)
	scope := policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}}
	record := must[azidentity.AuthenticationRecord](t)(credential.Authenticate(t.Context(), &scope))
	want := azidentity.AuthenticationRecord{
		Authority: tenant.URL(), ClientID: client, HomeAccountID: erin.ObjectID + "." + tenant.ID,
		TenantID: tenant.ID, Username: erin.Name, Version: "1.0",
	}
	if record != want {
		t.Errorf("got %+v, want %+v", record, want)
	}
	got, err := ask(t, credential, audience)
	if err != nil {
		t.Fatal(err)
	}
	if app, oid := claim(t, got.Token, "appid"), claim(t, got.Token, "oid"); app != client || oid != erin.ObjectID {
		t.Errorf("the token is for %v with client %v", oid, app)
	}
}

func TestTenant_PublishedKeysVerifyTokens(t *testing.T) {
	tenant := share(t).Tenant
	get := func(address string) map[string]any {
		t.Helper()
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil))
		status, content, _ := send(t, tenant.ClientOptions().Transport, r)
		var body map[string]any
		if err := json.Unmarshal(content, &body); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d, %v", address, status, err)
		}
		return body
	}
	instance := get(tenant.URL() + "/common/discovery/instance?api-version=1.1")
	configuration := get(instance["tenant_discovery_endpoint"].(string))
	if issuer, _ := configuration["issuer"].(string); !strings.HasPrefix(issuer, tenant.URL()+"/") {
		t.Errorf("the issuer is %q", issuer)
	}
	key := get(configuration["jwks_uri"].(string))["keys"].([]any)[0].(map[string]any)
	n := must[[]byte](t)(base64.RawURLEncoding.DecodeString(key["n"].(string)))
	e := must[[]byte](t)(base64.RawURLEncoding.DecodeString(key["e"].(string)))
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	issued := token(t, tenant.NewServicePrincipal("deployer"), audience).Token
	parsed, err := jwt.Parse(issued, func(*jwt.Token) (any, error) { return public, nil })
	if err != nil || parsed.Header["kid"] != key["kid"] {
		t.Errorf("kid %v, want %v; error %v", parsed.Header["kid"], key["kid"], err)
	}
}

func TestTenant_FaultsReachEveryKindOfClient(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	tenant := s.Tenant
	app, alice := tenant.NewServicePrincipal("deployer"), tenant.NewUser("alice@contoso.example")
	vm := tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm1")
	host := tenant.NewHost(vm)
	reset := "reset"
	if runtime.GOOS == "windows" {
		reset = "" // the system's message differs
	}
	for name, test := range map[string]struct {
		faults       entrapgtest.Faults
		status       int    // 0: no response
		message      string // in every client's error
		applications bool   // whether applications still get tokens
	}{
		"throttled": {
			faults: entrapgtest.Faults{Entra: entrapgtest.EntraThrottled}, status: http.StatusTooManyRequests,
			message: "AADSTS90055",
		},
		"failing": {
			faults: entrapgtest.Faults{Entra: entrapgtest.EntraServerError}, status: http.StatusInternalServerError,
			message: "AADSTS50000",
		},
		"truncated": {faults: entrapgtest.Faults{Entra: entrapgtest.EntraTruncated}, message: "json"},
		"reset":     {faults: entrapgtest.Faults{Entra: entrapgtest.EntraReset}, message: reset},
		"down":      {faults: entrapgtest.Faults{EntraDown: true}, status: http.StatusServiceUnavailable, message: "AADSTS90033"},
		"MFA": {
			faults: entrapgtest.Faults{Entra: entrapgtest.EntraRequiresMFA}, status: http.StatusBadRequest, message: "AADSTS50076",
			applications: true,
		},
		"MFA, and a delay": {
			faults: entrapgtest.Faults{Entra: entrapgtest.EntraRequiresMFA, EntraDelay: time.Millisecond},
			status: http.StatusBadRequest, message: "AADSTS50076", applications: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.SetFaults(test.faults)
			defer s.SetFaults(entrapgtest.Faults{})
			resource := "https://" + strings.ReplaceAll(name, " ", "-") + ".example"
			for kind, credential := range map[string]azcore.TokenCredential{
				"client secret":    secretCredential(t, tenant, tenant.ID, app.ClientID, app.ClientSecret),
				"user":             environmentCredential(t, alice, tenant),
				"managed identity": managedIdentity(t, host, nil),
				"app itself":       app,
				"user itself":      alice,
			} {
				_, err := ask(t, credential, resource)
				if application := !strings.HasPrefix(kind, "user"); application && test.applications {
					if err != nil {
						t.Errorf("%s: %v", kind, err)
					}
					continue
				}
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(test.message)) {
					t.Errorf("%s: got %v, want %q", kind, err, test.message)
				}
				var failure *azidentity.AuthenticationFailedError
				if strings.HasSuffix(kind, "itself") || test.status == 0 {
					continue
				}
				if !errors.As(err, &failure) || failure.RawResponse == nil || failure.RawResponse.StatusCode != test.status {
					t.Errorf("%s: got %v, want status %d", kind, err, test.status)
					continue
				}
				after := failure.RawResponse.Header.Get("Retry-After")
				if (after == "1") != (test.status == http.StatusTooManyRequests) {
					t.Errorf("%s: Retry-After is %q", kind, after)
				}
			}
		})
	}
}

func TestTenant_DelayBlocksNeitherClientNorClose(t *testing.T) {
	share(t)
	before := runtime.NumGoroutine()
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewServicePrincipal("deployer")
	s.SetFaults(entrapgtest.Faults{EntraDelay: time.Hour})
	request := policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := secretCredential(t, s.Tenant, s.Tenant.ID, app.ClientID,
		app.ClientSecret).GetToken(ctx, request); err == nil {
		t.Error("a slow Entra answered at once")
	}

	// One client waits, one has sent more than the server reads, two have sent half a
	// request, and one has only connected.
	asked, ended := s.Tenant.Requests(), make(chan error, 2)
	credential := secretCredential(t, s.Tenant, s.Tenant.ID, app.ClientID, app.ClientSecret)
	go func() {
		_, err := credential.GetToken(context.Background(), request)
		ended <- err
	}()
	go func() {
		endpoint := s.Tenant.URL() + "/" + s.Tenant.ID + "/oauth2/v2.0/token"
		response, err := s.Tenant.ClientOptions().Transport.(*http.Client).Post(endpoint, "application/x-www-form-urlencoded",
			strings.NewReader(strings.Repeat("x", 2<<20)))
		if err == nil {
			response.Body.Close()
		}
		ended <- err
	}()
	identity := strings.TrimSuffix(strings.TrimPrefix(s.Tenant.NewHost().Environ()[0], "IDENTITY_ENDPOINT=http://"),
		"/msi/token")
	for _, addr := range []string{strings.TrimPrefix(s.Tenant.URL(), "https://"), identity, identity} {
		conn := must[net.Conn](t)(net.Dial("tcp", addr))
		defer conn.Close()
		if addr == identity {
			fmt.Fprint(conn, "GET /msi/token HTTP/1.1\r\nHost:")
		}
	}
	eventually(t, "two clients wait", func() bool { return s.Tenant.Requests() >= asked+2 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close hangs")
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a request succeeded after Close")
		}
	}
	noneLeft(t, before)
}

func TestTenant_ShortTokenLifeIsNotRoundedUp(t *testing.T) {
	s := startFront(t, entrapgtest.Config{TokenLife: 1900 * time.Millisecond})
	app := s.Tenant.NewServicePrincipal("deployer")
	vm := s.Tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm1")
	for name, credential := range map[string]azcore.TokenCredential{
		"client secret":    secretCredential(t, s.Tenant, s.Tenant.ID, app.ClientID, app.ClientSecret),
		"managed identity": managedIdentity(t, s.Tenant.NewHost(vm), nil),
	} {
		for _, life := range []time.Duration{1900 * time.Millisecond, 300 * time.Millisecond} {
			s.SetFaults(entrapgtest.Faults{TokenLife: life})
			begun := time.Now()
			got, err := ask(t, credential, "https://short.example")
			took := time.Since(begun)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			claims := jwt.MapClaims{}
			if _, _, err := jwt.NewParser().ParseUnverified(got.Token, claims); err != nil {
				t.Fatal(err)
			}
			exp, _ := claims["exp"].(float64)
			// The client adds the seconds to its own clock, later than the tenant.
			if late := got.ExpiresOn.Sub(time.UnixMicro(int64(exp * 1e6))); late > took {
				t.Errorf("%s: a token for %v claims to be valid for %v longer", name, life, late)
			}
		}
	}
}
