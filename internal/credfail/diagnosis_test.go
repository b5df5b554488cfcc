package credfail_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/imds"
	"github.com/entrapg/entrapg/internal/token"
)

const guid = "11111111-2222-3333-4444-555555555555"

// emptyEnvironment hides the developer's identities from azidentity.
func emptyEnvironment(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		for _, prefix := range []string{"AZURE_", "IDENTITY_", "IMDS_", "MSI_", "HTTP", "http", "ALL_PROXY", "all_proxy"} {
			if strings.HasPrefix(name, prefix) {
				t.Setenv(name, "")
				os.Unsetenv(name)
			}
		}
	}
	t.Setenv("PATH", "")
}

// A transport answers azidentity's requests. A request that is not for a token
// gets a response with the status 404.
type transport func(*http.Request) (*http.Response, error)

func (f transport) Do(r *http.Request) (*http.Response, error) { return f(r) }

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

func clientOptions(f transport) azcore.ClientOptions {
	return azcore.ClientOptions{Transport: f, Retry: policy.RetryOptions{MaxRetries: -1}}
}

// answer returns a transport that answers every token request with a response. It
// answers requests for Entra's configuration as Entra does.
func answer(status int, body string) transport {
	return func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
			base := r.URL.Scheme + "://" + r.URL.Host + "/" + guid
			return respond(r, http.StatusOK, fmt.Sprintf(
				`{"token_endpoint":"%s/oauth2/v2.0/token","authorization_endpoint":"%s/authorize","issuer":"%s/v2.0"}`,
				base, base, base)), nil
		}
		return respond(r, status, body), nil
	}
}

// fail returns a transport that fails with err.
func fail(err error) transport {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// get returns the error of a token request, for the arguments that a constructor
// of azidentity returns.
func get[C azcore.TokenCredential](credential C, err error) error {
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = credential.GetToken(ctx,
		policy.TokenRequestOptions{Scopes: []string{"https://" + guid + ".example/.default"}})
	return err
}

func secretCredential(f transport) error {
	return get(azidentity.NewClientSecretCredential(guid, guid, "secret", &azidentity.ClientSecretCredentialOptions{
		ClientOptions: clientOptions(f), DisableInstanceDiscovery: true,
	}))
}

func managedIdentity(id azidentity.ManagedIDKind, f transport) error {
	return get(azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: clientOptions(f), ID: id,
	}))
}

// defaultCredential returns the error of DefaultAzureCredential on a machine whose
// Instance Metadata Service is f.
func defaultCredential(f transport) error {
	return get(azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: clientOptions(f), DisableInstanceDiscovery: true,
	}))
}

// noMetadata returns the client that entrapg passes to credentials, on a machine
// without an Instance Metadata Service.
func noMetadata(cause error) transport {
	client := imds.NewClient(func(context.Context, string, string) (net.Conn, error) { return nil, cause })
	return client.Do
}

// anotherCloud returns the error of a managed identity on a machine in another
// cloud, whose metadata service is not Azure's.
func anotherCloud() error {
	options := clientOptions(func(r *http.Request) (*http.Response, error) {
		response := respond(r, http.StatusNotFound, "not found")
		response.Header.Set("Content-Type", "text/plain")
		return response, nil
	})
	new(imds.Monitor).Install(&options)
	return get(azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}))
}

func dialError(cause error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: cause} }

// tool installs a developer tool on PATH that writes a message and fails.
func tool(t *testing.T, name, message string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the tool is a shell script")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\n/bin/cat >&2 <<'END'\n" + message + "\nEND\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
}

func check(t *testing.T, err error, kind credfail.Kind, hint string) {
	t.Helper()
	if err == nil {
		t.Fatal("the credential succeeds")
	}
	for name, err := range map[string]error{"itself": err, "wrapped": fmt.Errorf("no token: %w", err)} {
		got := credfail.Classify(err, credfail.Settings{})
		if got.Kind != kind || !strings.Contains(got.Hint, hint) || (got.Kind == credfail.Unknown) != (got.Hint == "") {
			t.Errorf("%s: %v\ngot %+v, want kind %d and a hint with %q", name, err, got, kind, hint)
		}
	}
}

// Entra's messages, by https://learn.microsoft.com/entra/identity-platform/reference-error-codes
// and public reports.
func TestClassify_RecognizesCodesOfEntra(t *testing.T) {
	emptyEnvironment(t)
	for _, test := range []struct {
		status  int
		message string
		kind    credfail.Kind
		hint    string
	}{
		{
			401,
			"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret " +
				"value, not the client secret ID, for a secret added to app 'x'.",
			credfail.WrongSecret, "not its ID",
		},
		{401, "AADSTS7000222: The provided client secret keys for app 'x' are expired.", credfail.ExpiredSecret, "expired"},
		{
			401,
			"AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application.",
			credfail.UnregisteredCertificate, "not registered",
		},
		{
			401, "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
			credfail.MissingClientCredential, "AZURE_CLIENT_SECRET",
		},
		{401, "AADSTS700024: Client assertion is not within its valid time range.", credfail.InvalidAssertion, "clock"},
		{401, "AADSTS50027: JWT token is invalid or malformed.", credfail.InvalidAssertion, "AZURE_FEDERATED_TOKEN_FILE"},
		{
			400, "AADSTS70021: No matching federated identity record found for presented assertion.",
			credfail.NotFederated, "federated credential",
		},
		{
			400, "AADSTS700211: No matching federated identity record found for presented assertion issuer 'x'.",
			credfail.NotFederated, "federated credential",
		},
		{
			400, "AADSTS700212: No matching federated identity record found for presented assertion audience 'x'.",
			credfail.NotFederated, "federated credential",
		},
		{
			400, "AADSTS700213: No matching federated identity record found for presented assertion subject 'x'.",
			credfail.NotFederated, "federated credential",
		},
		{
			400, "AADSTS700016: Application with identifier 'x' was not found in the directory 'y'.",
			credfail.UnknownApplication, "AZURE_CLIENT_ID",
		},
		{
			400,
			"AADSTS90002: Tenant 'x' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
			credfail.UnknownTenant, "AZURE_TENANT_ID",
		},
		{
			400, "AADSTS500011: The resource principal named https://x was not found in the tenant named y.",
			credfail.UnknownResource, "entra_scope",
		},
		{
			400,
			"AADSTS70011: The provided request must include a 'scope' input parameter. " +
				"The provided value for the input parameter 'scope' is not valid. The scope x is not valid.",
			credfail.InvalidScope, "/.default",
		},
		{
			400,
			"AADSTS1002012: The provided value for scope x is not valid. Client credential flows must have a scope value " +
				"with /.default suffixed to the resource identifier (application ID URI).",
			credfail.InvalidScope, "/.default",
		},
		{400, "AADSTS50074: Strong Authentication is required.", credfail.NeedsSecondFactor, "second factor"},
		{
			400,
			"AADSTS50076: Due to a configuration change made by your administrator, or because you moved to a new location, " +
				"you must use multi-factor authentication to access 'x'.",
			credfail.NeedsSecondFactor, "second factor",
		},
		{400, "AADSTS50079: The user is required to use multi-factor authentication.", credfail.NeedsSecondFactor, "second factor"},
		{400, "AADSTS53003: Access has been blocked by Conditional Access policies.", credfail.BlockedByPolicy, "policy"},
		{400, "AADSTS70008: The refresh token has expired due to inactivity.", credfail.LoginExpired, "log in again"},
		{
			400,
			"AADSTS70043: The refresh token has expired or is invalid due to sign-in frequency checks by conditional access.",
			credfail.LoginExpired, "log in again",
		},
		{400, "AADSTS700082: The refresh token has expired due to inactivity.", credfail.LoginExpired, "log in again"},
		{
			400, "AADSTS50173: The provided grant has expired due to it being revoked, a fresh auth token is needed.",
			credfail.LoginExpired, "revoked",
		},
		{400, "AADSTS50126: Error validating credentials due to invalid username or password.", credfail.WrongPassword, "AZURE_PASSWORD"},
		{400, "AADSTS50034: The user account x does not exist in the y directory.", credfail.UnknownUser, "AZURE_USERNAME"},
		{429, "AADSTS90055: The server is terminating the request because there are too many requests.", credfail.Throttled, "wait"},
		{503, "AADSTS90033: A transient error has occurred. Please try again.", credfail.ServiceFailed, "try again"},
		{500, "AADSTS50000: There was an error issuing a token.", credfail.ServiceFailed, "try again"},
		{400, "AADSTS7000160: x", credfail.Unknown, ""}, // begins as 700016 does
		{400, "AADSTS900144: The request body must contain the following parameter: 'scope'.", credfail.Unknown, ""},
	} {
		body := fmt.Sprintf(`{"error":"invalid","error_description":%q,"error_codes":[0]}`, test.message)
		entra := answer(test.status, body)
		check(t, secretCredential(entra), test.kind, test.hint)

		t.Setenv("AZURE_TENANT_ID", guid)
		t.Setenv("AZURE_CLIENT_ID", guid)
		t.Setenv("AZURE_CLIENT_SECRET", "secret")
		check(t, defaultCredential(entra), test.kind, test.hint)
		emptyEnvironment(t)
	}
}

func TestClassify_RecognizesManagedIdentityEndpoints(t *testing.T) {
	emptyEnvironment(t)
	unreachable := dialError(errors.New("connect: no route to host"))
	const other = azidentity.ClientID(guid)
	metadata := func(message string) transport {
		return answer(http.StatusBadRequest, `{"error":"invalid_request","error_description":"`+message+`"}`)
	}
	several := metadata(
		"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
	)
	for name, test := range map[string]struct {
		err  error
		kind credfail.Kind
		hint string
	}{
		"no endpoint": {managedIdentity(nil, noMetadata(unreachable)), credfail.NoEndpoint, "no managed identity"},
		"refused": {
			managedIdentity(nil, noMetadata(dialError(syscall.ECONNREFUSED))), credfail.NoEndpoint, "no managed identity",
		},
		"no endpoint, user-assigned": {managedIdentity(other, noMetadata(unreachable)), credfail.NoEndpoint, "no managed identity"},
		"no system-assigned":         {managedIdentity(nil, metadata("Identity not found")), credfail.NoSuchIdentity, "assign it"},
		"not assigned":               {managedIdentity(other, metadata("Identity not found")), credfail.NoSuchIdentity, "entra_client_id"},
		"not assigned, other words":  {managedIdentity(other, metadata("x")), credfail.NoSuchIdentity, "entra_client_id"},
		"several":                    {managedIdentity(nil, several), credfail.SeveralIdentities, "several"},
		"throttled":                  {managedIdentity(other, answer(429, `{"error":"too many requests"}`)), credfail.Throttled, "wait"},
		"failed":                     {managedIdentity(other, answer(500, `{"error":"unknown"}`)), credfail.ServiceFailed, "try again"},
		"another cloud's endpoint":   {anotherCloud(), credfail.NoEndpoint, "no managed identity"},
		"a slow endpoint": {
			fmt.Errorf("%w; %s", token.NoAnswer(time.Second), imds.NoEndpoint), credfail.NoEndpoint, "no managed identity",
		},
	} {
		t.Run(name, func(t *testing.T) { check(t, test.err, test.kind, test.hint) })
	}

	if got := credfail.Classify(managedIdentity(other, answer(http.StatusForbidden, `{"error":"x"}`)),
		credfail.Settings{}); got.Kind == credfail.StaleSecret {
		t.Error("the Instance Metadata Service has no secret")
	}
	t.Setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
	t.Setenv("IDENTITY_HEADER", "x")
	check(t, managedIdentity(other, answer(
		http.StatusBadRequest,
		`{"statusCode":400,"message":"No User Assigned or Delegated Managed Identity found for specified `+
			`ClientId/ResourceId/PrincipalId."}`,
	)), credfail.NoSuchIdentity, "assign it")
	check(t, managedIdentity(other, noMetadata(dialError(syscall.ECONNREFUSED))),
		credfail.StaleEndpoint, "IDENTITY_ENDPOINT")
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		stale := answer(status, `{"statusCode":401,"message":"x"}`)
		check(t, managedIdentity(other, stale), credfail.StaleSecret, "reload the environment")
		check(t, defaultCredential(stale), credfail.StaleSecret, "reload the environment")
	}
}

func TestClassify_RecognizesNetworkErrors(t *testing.T) {
	emptyEnvironment(t)
	notFound := &net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true}
	for name, test := range map[string]struct {
		cause error
		kind  credfail.Kind
		hint  string
	}{
		"unknown host": {dialError(notFound), credfail.Unreachable, "network"},
		"DNS fails": {
			dialError(&net.DNSError{Err: "server misbehaving", Name: "login.microsoftonline.com"}), credfail.Unreachable,
			"network",
		},
		"refused":    {dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED)), credfail.Unreachable, "HTTPS_PROXY"},
		"no network": {dialError(os.NewSyscallError("connect", syscall.ENETUNREACH)), credfail.Unreachable, "network"},
		"no route":   {dialError(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), credfail.Unreachable, "network"},
		"reset":      {os.NewSyscallError("read", syscall.ECONNRESET), credfail.Unreachable, "network"},
		"refused, 2": {
			errors.New("connectex: No connection could be made because the target machine actively refused it."),
			credfail.Unreachable, "network",
		},
		"reset, 2": {
			errors.New("wsarecv: An existing connection was forcibly closed by the remote host."), credfail.Unreachable,
			"network",
		},
		"inspected TLS": {x509.UnknownAuthorityError{}, credfail.UntrustedCertificate, "proxy"},
		"inspected TLS 2": {
			errors.New("x509: “login.microsoftonline.com” certificate is not trusted"),
			credfail.UntrustedCertificate, "proxy",
		},
		"proxy": {
			errors.New("proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused"), credfail.Proxy, "HTTPS_PROXY",
		},
		"proxy 2":        {errors.New("Proxy Authentication Required"), credfail.Proxy, "HTTPS_PROXY"},
		"something else": {io.ErrUnexpectedEOF, credfail.Unknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, secretCredential(fail(test.cause)), test.kind, test.hint)
		})
	}
	check(t, token.NoAnswer(time.Second), credfail.NoAnswer, "network")
	for _, err := range []error{nil, context.Canceled, context.DeadlineExceeded, errors.New("x")} {
		if got := credfail.Classify(err, credfail.Settings{}); got != (credfail.Diagnosis{}) {
			t.Errorf("%v: got %+v", err, got)
		}
	}
}

func TestClassify_RecognizesDeveloperTools(t *testing.T) {
	emptyEnvironment(t)
	const refreshTokenExpired = "ERROR: AADSTS700082: The refresh token has expired due to inactivity.\n" +
		"Interactive authentication is needed. Please run:\naz login"
	cli := func() error { return get(azidentity.NewAzureCLICredential(nil)) }
	azd := func() error { return get(azidentity.NewAzureDeveloperCLICredential(nil)) }
	powerShell := func() error { return get(azidentity.NewAzurePowerShellCredential(nil)) }
	chain := func() error { return defaultCredential(noMetadata(dialError(syscall.ECONNREFUSED))) }

	check(t, cli(), credfail.AzureCLIMissing, "Azure CLI")
	check(t, azd(), credfail.ToolMissing, "Azure Developer CLI")
	check(t, powerShell(), credfail.ToolMissing, "PowerShell")

	for _, test := range []struct {
		name, output string
		get          func() error
		kind         credfail.Kind
		hint         string
	}{
		{"az", "ERROR: Please run 'az login' to setup account.", cli, credfail.NotLoggedIn, "az login"},
		{"az", "ERROR: Please run 'az login' to setup account.", chain, credfail.NotLoggedIn, "az login"},
		{"az", refreshTokenExpired, cli, credfail.LoginExpired, "log in again"},
		{"az", refreshTokenExpired, chain, credfail.LoginExpired, "log in again"},
		{"az", "ERROR: AADSTS90055: There are too many requests.", cli, credfail.Throttled, "wait"},
		{"az", "ERROR: AADSTS90033: A transient error has occurred. Please try again.", cli, credfail.ServiceFailed, "try again"},
		{"az", "ERROR: AADSTS50000: There was an error issuing a token.", cli, credfail.ServiceFailed, "try again"},
		{
			"azd",
			`{"type":"consoleMessage","timestamp":"2026-01-01T00:00:00Z","data":` +
				`{"message":"\nERROR: fetching token: not logged in, run ` + "`azd auth login`" + ` to login\n"}}`,
			azd, credfail.NotLoggedIn, "azd auth login",
		},
		{"azd", `{"error":"not logged in, run ` + "`azd auth login`" + ` to login"}`, chain, credfail.NotLoggedIn, "azd auth login"},
		{"pwsh", "Get-AzAccessToken: Run Connect-AzAccount to login.", powerShell, credfail.NotLoggedIn, "Connect-AzAccount"},
		{"pwsh", "Write-Error: Az.Accounts module not found", powerShell, credfail.ToolMissing, "Az.Accounts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tool(t, test.name, test.output)
			check(t, test.get(), test.kind, test.hint)
		})
	}
}

func TestClassify_RecognizesMissingSettings(t *testing.T) {
	emptyEnvironment(t)
	environment := func() error { return get(azidentity.NewEnvironmentCredential(nil)) }
	workload := func() error { return get(azidentity.NewWorkloadIdentityCredential(nil)) }

	check(t, environment(), credfail.NotConfigured, "AZURE_CLIENT_SECRET")
	check(t, workload(), credfail.NotInPod, "AZURE_FEDERATED_TOKEN_FILE") // no client ID
	t.Setenv("AZURE_CLIENT_ID", guid)
	check(t, workload(), credfail.NotInPod, "AZURE_FEDERATED_TOKEN_FILE") // no file
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "token")
	check(t, workload(), credfail.NotInPod, "AZURE_FEDERATED_TOKEN_FILE") // no tenant
	t.Setenv("AZURE_TENANT_ID", guid)
	check(t, environment(), credfail.NotConfigured, "AZURE_CLIENT_SECRET") // no secret
	t.Setenv("AZURE_USERNAME", "alice@contoso.example")
	check(t, environment(), credfail.NotConfigured, "AZURE_CLIENT_SECRET") // no password
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "production")
	check(t, defaultCredential(fail(errors.New("x"))), credfail.NotConfigured, "AZURE_TOKEN_CREDENTIALS")
}

func TestClassify_RecognizesChainWithoutIdentity(t *testing.T) {
	emptyEnvironment(t)
	refused := noMetadata(dialError(syscall.ECONNREFUSED))
	check(t, defaultCredential(refused), credfail.NoIdentity, "az login")
	cli, err := azidentity.NewAzureCLICredential(nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, get(azidentity.NewChainedTokenCredential([]azcore.TokenCredential{cli}, nil)),
		credfail.NoIdentity, "az login")
	check(t, defaultCredential(func(r *http.Request) (*http.Response, error) {
		return respond(r, http.StatusBadRequest, `{"error":"invalid_request","error_description":"Identity not found"}`), nil
	}), credfail.NoSuchIdentity, "assign it")

	t.Setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
	check(t, defaultCredential(refused), credfail.NoEndpoint, "no managed identity")

	t.Setenv("AZURE_CLIENT_ID", "")
	check(t, defaultCredential(refused), credfail.NotConfigured, "AZURE_CLIENT_ID is set to an empty value")
}

func TestClassify_UsesMemberThatEndsChain(t *testing.T) {
	emptyEnvironment(t)
	notFound := dialError(&net.DNSError{Err: "no such host", Name: "login.microsoftonline.com", IsNotFound: true})
	for name, test := range map[string]struct {
		entra transport
		kind  credfail.Kind
		hint  string
	}{
		"network":  {fail(notFound), credfail.Unreachable, "network"},
		"response": {answer(http.StatusTooManyRequests, `{"error":"busy","error_description":"x"}`), credfail.Throttled, "wait"},
		"code": {
			answer(http.StatusUnauthorized, `{"error":"invalid_client","error_description":"AADSTS7000215: x"}`),
			credfail.WrongSecret, "not its ID",
		},
	} {
		t.Run(name, func(t *testing.T) {
			none, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
				ClientOptions: clientOptions(
					answer(http.StatusBadRequest, `{"error":"invalid_request","error_description":"Identity not found"}`),
				),
			})
			if err != nil {
				t.Fatal(err)
			}
			secret, err := azidentity.NewClientSecretCredential(guid, guid, "secret", &azidentity.ClientSecretCredentialOptions{
				ClientOptions: clientOptions(test.entra), DisableInstanceDiscovery: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			chain := []azcore.TokenCredential{none, secret}
			check(t, get(azidentity.NewChainedTokenCredential(chain, nil)), test.kind, test.hint)
		})
	}
}

func TestClassify_RecognizesCredentialsThatRequireUser(t *testing.T) {
	emptyEnvironment(t)
	check(t, get(azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{
		ClientOptions: clientOptions(answer(http.StatusOK, "{}")), TenantID: guid,
		DisableInstanceDiscovery: true, DisableAutomaticAuthentication: true,
	})), credfail.NeedsUser, "Authenticate")
}

func TestClassify_NamesSettingsThatSelectIdentity(t *testing.T) {
	emptyEnvironment(t)
	notAssigned := managedIdentity(
		azidentity.ClientID(guid),
		answer(http.StatusBadRequest, `{"error":"x","error_description":"Identity not found"}`),
	)
	noTenant := secretCredential(answer(http.StatusBadRequest, `{"error":"x","error_description":"AADSTS90002: x"}`))
	for _, test := range []struct {
		err      error
		settings credfail.Settings
		want     string
		not      string
	}{
		{notAssigned, credfail.Settings{ClientID: "entra_client_id"}, "set entra_client_id to", "AZURE_CLIENT_ID"},
		{notAssigned, credfail.Settings{ClientID: "AZURE_CLIENT_ID"}, "set AZURE_CLIENT_ID to", "entra_client_id"},
		{notAssigned, credfail.Settings{}, "set entra_client_id or AZURE_CLIENT_ID to", "{"},
		{noTenant, credfail.Settings{TenantID: "entra_tenant_id"}, "check entra_tenant_id", "AZURE_TENANT_ID"},
	} {
		if got := credfail.Classify(test.err, test.settings).Hint; !strings.Contains(got, test.want) ||
			strings.Contains(got, test.not) {
			t.Errorf("%+v: got %q", test.settings, got)
		}
	}
}
