package doctor

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/azlog"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/imds"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// No test reaches Azure, so the advice about its servers is tested directly.
func TestDoctor_PutsServerNameInAzureCommands(t *testing.T) {
	login, err := inspect.Open("postgres://shop.postgres.database.azure.com/shop")
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close()
	x := &state{
		login:     login,
		endpoints: endpointsOf(login),
		token:     &inspect.Token{User: "shop-api", Claim: "app_displayname"},
		claims:    claims.Claims{"oid": "1", "tid": "2", "idtyp": "app"},
	}
	e := x.endpoints[0]
	rejected := func(message string) *problem {
		return reject(t, x, &pgconn.PgError{Severity: "FATAL", Code: "28000", Message: message}, pgfail.Login{})
	}
	const group = `--resource-group "$(az postgres flexible-server list --query "[?name=='shop'].resourceGroup" --output tsv)"`
	for name, test := range map[string]struct {
		problem    *problem
		means, fix string
	}{
		"no such host": {
			networkSteps{x}.unknownHost(e, &net.DNSError{IsNotFound: true}), "private endpoint whose DNS zone is not linked",
			"az postgres flexible-server list --query '[].fullyQualifiedDomainName' --output tsv",
		},
		"no answer": {
			networkSteps{x}.unreachable(e, context.DeadlineExceeded), "firewall does not accept this machine's address",
			"az postgres flexible-server firewall-rule create " + group +
				` --server-name shop --name doctor --start-ip-address "$address" --end-ip-address "$address"`,
		},
		"refused": {networkSteps{x}.unreachable(e, errRefused), "5432", "az postgres flexible-server start --name shop " + group},
		"a slim container": {
			tlsStep{x}.noTLS(e, x509.UnknownAuthorityError{},
				[]*x509.Certificate{{Issuer: pkix.Name{CommonName: "DigiCert Global Root G2"}}}),
			"DigiCert Global Root G2 is missing on this machine", "apk add ca-certificates",
		},
		"another tenant": {
			rejected("An error occurred while validating the access token. Please acquire a new token and retry"),
			"tenant", "az postgres flexible-server show --name shop " + group + " --query authConfig.tenantId --output tsv",
		},
		"not from here": {
			rejected(`no pg_hba.conf entry for host "203.0.113.7", user "shop-api", database "shop", SSL encryption`),
			"firewall",
			"az postgres flexible-server firewall-rule create " + group +
				` --server-name shop --name doctor --start-ip-address "$address" --end-ip-address "$address"`,
		},
		"a private address": {&problem{Explanation: describe([]string{"10.1.0.4"}, true)}, "a private endpoint or a virtual network", ""},
		"a public address":  {&problem{Explanation: describe([]string{"20.61.0.9"}, true)}, "public", ""},
	} {
		if !strings.Contains(test.problem.Explanation, test.means) || test.fix != "" && !slices.Contains(test.problem.Fix, test.fix) {
			t.Errorf("%s: got %+v\nwant %q and %q", name, *test.problem, test.means, test.fix)
		}
	}
}

// reject returns the explanation of a login that fails with the server's response.
func reject(t *testing.T, x *state, response *pgconn.PgError, details pgfail.Login) *problem {
	d := pgfail.Classify(response, details)
	return serverSteps{x}.rejected(t.Context(), &entrapg.LoginError{Err: response, Hint: d.Hint}, d.Kind)
}

func TestDoctor_ScopeComesFromHostAndNotFromServer(t *testing.T) {
	const (
		public     = "https://ossrdbms-aad.database.windows.net/.default"
		government = "https://ossrdbms-aad.database.usgovcloudapi.net/.default"
		cosmos     = "https://token.postgres.cosmos.azure.com/.default"
	)
	for _, test := range []struct{ dsn, named, fix string }{
		{"host=shop.postgres.database.azure.com entra_scope=" + government, "https://vault.azure.net", "entra_scope=" + public},
		{
			"host=shop.postgres.database.usgovcloudapi.net entra_scope=" + public, "https://ossrdbms-aad.database.windows.net",
			"entra_scope=" + government,
		},
		{
			"host=127.0.0.1,c.shop.postgres.cosmos.azure.com entra_scope=" + public, "https://token.postgres.cosmos.azure.com",
			"entra_scope=" + cosmos,
		},
		{"host=shop.postgres.database.azure.com", "https://token.postgres.cosmos.azure.com", "entrapg whoami DSN"},
		{"host=db.corner.example", "https://vault.azure.net", "entrapg whoami DSN"},
	} {
		login, err := inspect.Open(test.dsn + " user=shop-api")
		if err != nil {
			t.Fatal(err)
		}
		defer login.Close()
		x := &state{dsn: test.dsn, login: login, endpoints: endpointsOf(login), token: &inspect.Token{User: "shop-api", Claim: "x"}}
		response := &pgconn.PgError{
			Code:    "28000",
			Message: `The access token does not have a valid audience claim. Please acquire a new token for the resource "` + test.named + `".`,
		}
		if got := reject(t, x, response, pgfail.Login{}).Fix; len(got) != 2 || got[1] != test.fix {
			t.Errorf("%s: got %q, want %q", test.dsn, got, test.fix)
		}
	}
}

func TestDoctor_ReportsConnectionThatIsUnsafeForToken(t *testing.T) {
	got := serverSteps{
		&state{dsn: "host=h sslmode=disable"},
	}.failed(
		t.Context(),
		&entrapg.ConfigError{Setting: "host", Problem: "the host resolved to 192.0.2.1:5432"},
	)
	if got.Error != "host: the host resolved to 192.0.2.1:5432" || !strings.Contains(got.Explanation, "no token was sent") ||
		!slices.Contains(got.Fix, "sslmode=verify-full") {
		t.Errorf("got %+v", got)
	}
}

func TestDoctor_ExplainsMissingManagedIdentityEndpoint(t *testing.T) {
	s := entraSteps{
		&state{dsn: "host=h entra_credential=managedidentity", login: &inspect.Login{Credential: "ManagedIdentityCredential"}},
	}
	for _, text := range []string{imds.NoEndpoint, "no answer within 30s: context deadline exceeded; " + imds.NoEndpoint} {
		got := s.noToken(&entrapg.TokenError{Err: errors.New(text)})
		if !strings.Contains(got.Explanation, "no managed identity") ||
			!slices.Equal(withoutComments(got.Fix), []string{"az login", "entra_credential=azurecli"}) {
			t.Errorf("%s: got %+v", text, got)
		}
	}
}

func TestDoctor_OffersPasswordForLocalServer(t *testing.T) {
	for host, local := range map[string]bool{
		"localhost": true, "127.0.0.1,localhost": true, "/tmp sslmode=disable": true,
		"db.example": false, "localhost,db.example": false,
	} {
		dsn := "host=" + host
		want := []string{"az login"}
		if local {
			want = append(want, "entra_credential=none")
		}
		login, err := inspect.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		s := entraSteps{&state{dsn: dsn, login: login, endpoints: endpointsOf(login)}}
		if got := withoutComments(s.fix(credfail.NoIdentity)); !slices.Equal(got, want) {
			t.Errorf("%s without a credential: %q, want %q", host, got, want)
		}
		f := &finding{}
		got := settingsStep{&state{dsn: dsn + " password=secret"}}.read(t.Context(), f)
		if !slices.Contains(got.Fix, "# in the DSN: remove password") || slices.Contains(got.Fix, "entra_credential=none") != local {
			t.Errorf("%s with a password: %q", host, got.Fix)
		}
		login.Close()
	}
}

func TestDoctor_MentionsProxyOnThisMachine(t *testing.T) {
	const advice = "If this is entrapg proxy, its clients need no token"
	for host, local := range map[string]bool{"127.0.0.1": true, "/tmp sslmode=disable": true, "db.example": false} {
		login, err := inspect.Open("user=app host=" + host)
		if err != nil {
			t.Fatal(err)
		}
		x := &state{dsn: "host=" + host, login: login, endpoints: endpointsOf(login), token: &inspect.Token{User: "app"}}
		for cause, p := range map[string]*problem{
			"no TLS":                  tlsStep{x}.noServerTLS(x.endpoints[0]),
			"a password is requested": serverSteps{x}.rejected(t.Context(), &entrapg.LoginError{Err: errors.New("x")}, pgfail.NotMapped),
			"nothing is requested": serverSteps{x}.rejected(
				t.Context(), &entrapg.LoginError{Err: errors.New("x")}, pgfail.NoAuthentication),
		} {
			if strings.Contains(p.Explanation, advice) != local {
				t.Errorf("%s, %s: %s", host, cause, p.Explanation)
			}
		}
		login.Close()
	}
}

func TestDoctor_ReportsFailedLookupOfUser(t *testing.T) {
	login, err := inspect.Open("host=shop.postgres.database.azure.com")
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close()
	lookup := &entrapg.TokenError{Err: errors.New("AADSTS53003: Access has been blocked by Conditional Access policies.")}
	x := &state{dsn: "host=h", login: login, token: &inspect.Token{User: "7d", Claim: "appid", Lookup: lookup}}
	f := &finding{Status: statusOK}
	if got := (entraSteps{x}).nameUser(t.Context(), f); got != nil || f.Status != statusWarning || !strings.Contains(f.Error, "AADSTS53003") {
		t.Errorf("got %+v and %+v", got, f)
	}
	rejected := &pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: `password authentication failed for user "7d"`}
	if got := reject(t, x, rejected, pgfail.Login{Unnamed: true}); !slices.Contains(got.Fix, "user=ROLE") {
		t.Errorf("got %+v", got)
	}
}

func TestDoctor_ShowsCommandsForCredentials(t *testing.T) {
	for _, test := range []struct{ dsn, text, fix string }{
		{
			"entra_credential=azurecli", "AzureCLICredential: executable not found on path",
			"curl -sL https://aka.ms/InstallAzureCLIDeb | sudo bash",
		},
		{"entra_credential=azurecli", "AzureCLICredential: ERROR: Please run 'az login' to setup account.", "az login"},
		{"entra_credential=azuredevelopercli", "AzureDeveloperCLICredential: not logged in, run `azd auth login` to login", "azd auth login"},
		{
			"entra_credential=azurepowershell", `AzurePowerShellCredential: Please run "Connect-AzAccount" to set up an account`,
			"Connect-AzAccount",
		},
		{"", "AADSTS700027: x", "az ad app credential list --id CLIENT_ID --cert"},
		{"", "AADSTS700024: x", "date -u"},
		{"", "AADSTS700213: x", "az ad app federated-credential list --id CLIENT_ID"},
		{"", "AADSTS700016: x", "az ad app show --id CLIENT_ID"},
		{"", "AADSTS50076: x", "az login --scope https://ossrdbms-aad.database.windows.net/.default"},
		{"", "AADSTS700082: x", "az login"},
		{"entra_scope=https://vault.azure.net", "AADSTS70011: x", "entra_scope=https://ossrdbms-aad.database.windows.net/.default"},
		{"", "AADSTS70011: x", "# Microsoft describes this error at https://login.microsoftonline.com/error?code=70011"},
		{"", "AADSTS53003: x", "# Microsoft describes this error at https://login.microsoftonline.com/error?code=53003"},
		{"", "AADSTS90033: x", "entrapg doctor DSN"},
		{"", "something else", "export AZURE_SDK_GO_LOGGING=all"},
	} {
		t.Setenv("AZURE_CLIENT_ID", "")
		login, err := inspect.Open("host=shop.postgres.database.azure.com " + test.dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer login.Close()
		x := &state{
			dsn:       "host=shop.postgres.database.azure.com " + test.dsn,
			login:     login,
			endpoints: endpointsOf(login),
			tried:     &azlog.Attempts{},
		}
		got := entraSteps{x}.noToken(&entrapg.TokenError{Err: errors.New(test.text)})
		if !slices.Contains(got.Fix, test.fix) {
			t.Errorf("%s: %s\ngot %+v, want %q", test.dsn, test.text, got, test.fix)
		}
	}
}

func TestDoctor_ShowsProgressOfSlowStepOnTerminal(t *testing.T) {
	for takes, want := range map[time.Duration]string{
		999 * time.Millisecond:  "",
		2500 * time.Millisecond: "\r\x1b[K… login       1 s\r\x1b[K… login       2 s\r\x1b[K",
	} {
		synctest.Test(t, func(t *testing.T) {
			var out strings.Builder
			d := &diagnosis{out: &terminal.Output{Writer: &out, Live: true, Width: 80}}
			stop := d.progress("login")
			time.Sleep(takes)
			stop()
			if out.String() != want {
				t.Errorf("a step of %v shows %q", takes, out.String())
			}
		})
	}
}

func TestDoctor_WaitsFiveSecondsForEachAddress(t *testing.T) {
	synctest.Test(t, waitsFiveSecondsForEachAddress)
}

func waitsFiveSecondsForEachAddress(t *testing.T) {
	ctx := t.Context()
	x := &state{dsn: "host=192.0.2.1"}
	f := &finding{Status: statusOK}
	if failure := (settingsStep{x}).read(ctx, f); failure != nil {
		t.Fatal(failure)
	}
	defer x.close()
	if x.answerTimeout() != 5*time.Second {
		t.Errorf("waits %v", x.answerTimeout())
	}
	var waits []time.Duration
	x.login.Config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		deadline, _ := ctx.Deadline()
		waits = append(waits, time.Until(deadline))
		return nil, context.DeadlineExceeded
	}
	x.endpoints[0].addresses = []string{"192.0.2.1", "192.0.2.2"}
	got := networkSteps{x}.dial(ctx, f)
	if !slices.Equal(waits, []time.Duration{defaultAnswerTimeout, defaultAnswerTimeout}) {
		t.Errorf("waits %v", waits)
	}
	if want := "192.0.2.1:5432 does not answer within 5s\n192.0.2.2:5432 does not answer within 5s"; got == nil || got.Error != want {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestDoctor_ReportsServerThatDoesNotAnswer(t *testing.T) {
	for _, test := range []struct {
		dsn, answer        string
		waits              time.Duration
		error, explanation string
	}{
		{"host=192.0.2.1", "", 5 * time.Second, "accepts the connection and does not answer within 5s", "a proxy cannot reach its server"},
		{
			"host=192.0.2.1 connect_timeout=77", "", 77 * time.Second, "accepts the connection and does not answer within 1m17s",
			"a proxy cannot reach its server",
		},
		{"host=192.0.2.1", "S", 5 * time.Second, "starts the TLS handshake but does not finish it within 5s", "inspects TLS"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, f := &state{dsn: test.dsn}, &finding{Status: statusOK}
			if failure := (settingsStep{s}).read(t.Context(), f); failure != nil {
				t.Fatal(failure)
			}
			defer s.close()
			client, server := net.Pipe()
			go func() {
				io.ReadFull(server, make([]byte, 8))
				io.WriteString(server, test.answer)
				io.Copy(io.Discard, server)
			}()
			s.endpoints[0].conn = client
			begun := time.Now()
			got := tlsStep{s}.encrypt(t.Context(), f)
			if got == nil || got.Error != "192.0.2.1:5432 "+test.error || !strings.Contains(got.Explanation, test.explanation) ||
				!slices.Contains(got.Fix, "pg_isready -h 192.0.2.1 -p 5432") {
				t.Errorf("got %+v, want %s", got, test.error)
			}
			if waited := time.Since(begun); waited != test.waits {
				t.Errorf("waited %v, want %v", waited, test.waits)
			}
		})
	}
}

// withoutComments returns the lines of a fix without comments.
func withoutComments(fix []string) []string {
	return slices.DeleteFunc(slices.Clone(fix), isComment)
}

func TestDoctor_FixesInvalidSettings(t *testing.T) {
	const client = "7d5e5a1c-0f6e-4b0a-9c1d-2f3a4b5c6d7e"
	for dsn, want := range map[string]string{
		"host=/run/postgresql":                       "sslmode=disable",
		"host=h sslmode=prefer":                      "sslmode=verify-full",
		"host=h hostname=h":                          "host=h",
		"host=h USER=bob":                            "user=bob",
		"host=h service=x servicefile=/nowhere":      "servicefile=SERVICE_FILE",
		"host=h service=x servicefile=" + os.DevNull: `grep '^\[' ` + os.DevNull,
		"postgres://h/?options=-csearch_path=a%20b":  "options=-csearch_path%3Da%20b",
		"postgres://h/?options=a&options=-c%zz":      "options=-c%25zz",
		"postgres://h/?password=hunter2=x":           "password=VALUE",
		"host=h ssl=true":                            "sslmode=verify-full",
		"host=h oauth_client_id=client":              "entra_client_id=client",
		"host=h tcp_user_timeout=60000":              "", // which is in milliseconds, unlike keepalives_idle
		"host=h binary_parameters=yes":               "",
		"host=h sslcrl=crl":                          "",
		"host=h entra_tenant_id=contoso":             "az account show --query tenantId --output tsv\nentra_tenant_id=TENANT_ID",
		"host=h entra_credential=managedidentity entra_client_id=shop-api": "az identity list --query '[].{name:name,clientId:clientId}' --output table\n" +
			"entra_client_id=CLIENT_ID",
		"host=h entra_credential=environment entra_client_id=" + client: "export AZURE_CLIENT_ID=" + client + "\nentra_credential=managedidentity",
		"host=h entra_credential=azurecli entra_client_id=" + client:    "",
	} {
		x := &state{dsn: dsn, source: "argument", tried: &azlog.Attempts{}}
		got := settingsStep{x}.read(t.Context(), &finding{Status: statusOK})
		if got == nil {
			t.Errorf("%s: no failure", dsn)
			continue
		}
		removed := slices.ContainsFunc(got.Fix, func(line string) bool { return strings.Contains(line, ": remove ") })
		if fix := strings.Join(withoutComments(got.Fix), "\n"); fix != want || want == "" && !removed {
			t.Errorf("%s: got %q, want %q", dsn, got.Fix, want)
		}
	}
}
