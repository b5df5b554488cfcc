package entrapg_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestCredential_DefaultIsCreatedAtFirstConnect(t *testing.T) {
	p := server().Tenant.NewUser("cli@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	db, c := open(t, server().DSN())
	// Set after NewConnector: the credential is created at the first Connect.
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	calls := azureCLI(t, azAnswer(token))
	db.SetMaxIdleConns(0)
	for range 3 {
		if user := sessionUser(t, db); user != p.Name {
			t.Errorf("logged in as %q, want %q", user, p.Name)
		}
	}
	if n := calls(); n != 1 || c.Stats().TokenRequests != 1 {
		t.Errorf("az was called %d times, want 1; Stats: %+v", n, c.Stats())
	}
}

func TestCredential_DefaultFailureNamesCredentialAndCause(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	azureCLI(t, `echo "ERROR: Please run 'az login' to setup account." >&2; exit 1`)
	var token *entrapg.TokenError
	if err := connect(t, entrapg.NewConnector(server().DSN())); !errors.As(err, &token) ||
		!strings.Contains(err.Error(), "az login") ||
		!strings.Contains(err.Error(), "AzureCLICredential") {
		t.Errorf("got %v, want a TokenError with the message of az", err)
	}
}

func TestCredential_FailedCreationIsTokenErrorAndRetried(t *testing.T) {
	p := server().Tenant.NewUser("later@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	c := entrapg.NewConnector(server().DSN())
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
	var tokenErr *entrapg.TokenError
	if err := connect(t, c); !errors.As(err, &tokenErr) || tokenErr.Credential != "DefaultAzureCredential" ||
		!strings.Contains(err.Error(), "AZURE_TOKEN_CREDENTIALS") {
		t.Errorf("got %v, want a TokenError that names the variable", err)
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "AzureCLICredential")
	azureCLI(t, azAnswer(token))
	mustConnect(t, c)
}

func TestCredential_CallersLeaveAtTheirDeadlinesWhileAzureCLIRuns(t *testing.T) {
	p := server().Tenant.NewUser("slow.cli@contoso.example")
	createRole(t, server(), "", p)
	token, err := p.GetToken(t.Context(), tokenOptions(databaseScope))
	if err != nil {
		t.Fatal(err)
	}
	release := filepath.Join(t.TempDir(), "release")
	calls := azureCLI(t, "while [ ! -e "+release+" ]; do sleep 0.05; done\n"+azAnswer(token))
	c := entrapg.NewConnector(server().DSN() + "&entra_credential=azurecli")
	defer c.Close()

	ended := make(chan outcome, 20)
	for range 20 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := c.Connect(ctx)
			ended <- outcome{Kind: kindOf(err), Deadline: errors.Is(err, context.DeadlineExceeded)}
		}()
	}
	for range 20 { // while az is still running
		if o := <-ended; o.Kind != "TokenError" || !o.Deadline {
			t.Errorf("got %+v, want a TokenError with the caller's deadline", o)
		}
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustConnect(t, c)
	if n := calls(); n != 1 {
		t.Errorf("az was called %d times, want 1", n)
	}
}

// An environment returns the variables that a program needs to log in as a principal.
type environment = func(*testing.T, *entrapgtest.Server, *entrapgtest.Principal) []string

// A way is one of azidentity's credentials, and the DSN, the environment or the code that
// configures it.
type way struct {
	principal func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal
	dsn       string
	env       environment
	code      func(*testing.T, *entrapgtest.Server, *entrapgtest.Principal) azcore.TokenCredential
}

func ways() map[string]way {
	user := func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		return t.NewUser(name + "@contoso.example")
	}
	service := (*entrapgtest.Tenant).NewServicePrincipal
	userAssigned := (*entrapgtest.Tenant).NewUserAssignedIdentity
	systemAssigned := func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		return t.NewSystemAssignedIdentity("Microsoft.Web/sites/" + name)
	}
	onHost := func(_ *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
		return s.Tenant.NewHost(p).Environ()
	}
	developer := func(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
		return []string{
			"PATH=" + tools(t), toolAuthority + "=" + s.Tenant.URL(), toolCA + "=" + s.CAFile(),
			toolUser + "=" + p.Name, toolPassword + "=" + p.Password,
		}
	}
	limited := func(env environment, to string) environment {
		return func(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
			return append(env(t, s, p), "AZURE_TOKEN_CREDENTIALS="+to)
		}
	}
	secret := func(_ *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
		return append(p.Environ(), "SSL_CERT_FILE="+s.CAFile())
	}
	const (
		managed  = "&entra_credential=managedidentity"
		variable = "&entra_credential=environment"
		pod      = "&entra_credential=workloadidentity"
		client   = "&entra_client_id={client}"
		tenant   = "&entra_tenant_id={tenant}"
	)
	prod := limited(secret, "prod")
	all := map[string]way{
		"managed identity, system-assigned":     {principal: systemAssigned, dsn: managed, env: onHost},
		"managed identity, user-assigned":       {principal: userAssigned, dsn: managed + client, env: onHost},
		"managed identity of a virtual machine": {principal: systemAssigned, code: virtualMachine},
		"client secret in the environment":      {principal: service, dsn: variable, env: secret},
		"client certificate in the environment": {principal: service, dsn: variable, env: certificateInEnvironment},
		"client assertion":                      {principal: service, code: assertion},
		"workload identity":                     {principal: userAssigned, dsn: pod, env: workload},
		"workload identity of the DSN":          {principal: userAssigned, dsn: pod + client + tenant, env: workloadUnnamed},
		"default, on App Service":               {principal: systemAssigned, env: onHost},
		"default, limited to production":        {principal: service, dsn: "&entra_credential=default", env: prod},
	}
	if runtime.GOOS != "windows" { // where the tools, which are shell scripts, do not run
		maps.Copy(all, map[string]way{
			"Azure CLI":                           {principal: user, dsn: "&entra_credential=azurecli", env: developer},
			"Azure Developer CLI":                 {principal: user, dsn: "&entra_credential=azuredevelopercli", env: developer},
			"Azure PowerShell":                    {principal: user, dsn: "&entra_credential=azurepowershell", env: developer},
			"default, limited to one tool":        {principal: user, env: limited(developer, "AzureCLICredential")},
			"default, limited to developer tools": {principal: user, env: limited(developer, "dev")},
		})
	}
	return all
}

// TestCredential_EveryKindSurvivesRefreshAndOutage tests each of azidentity's credentials with a
// first login, a refresh, a rejected login, an outage and a slow tenant. All perform each step at
// the same time, because the tenant's faults apply to all.
func TestCredential_EveryKindSurvivesRefreshAndOutage(t *testing.T) {
	t.Parallel()
	const life = 12 * time.Second // long enough to log in, on a slow machine too
	s := start(t, entrapgtest.Config{TokenLife: life})
	other := s.Tenant.NewUser("bob.of.all.ways@contoso.example")
	createRole(t, s, "", other)
	var clients []*client
	programs := 0
	for name, w := range ways() {
		p := w.principal(s.Tenant, fmt.Sprintf("way-%d", len(clients)))
		createRole(t, s, "", p)
		if p.Kind != entrapgtest.User {
			programs++
		}
		clients = append(clients, &client{
			name: name, user: p.Name, logIn: w.start(t, s, p),
			dsn: s.DSN() + strings.NewReplacer("{client}", p.ClientID, "{tenant}", s.Tenant.ID).Replace(w.dsn),
		})
	}
	// each calls do for every client that has not failed yet.
	each := func(step string, do func(*client) error) {
		t.Helper()
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() {
				if c.err == nil {
					c.err = do(c)
				}
			})
		}
		all.Wait()
		clients = slices.DeleteFunc(clients, func(c *client) bool {
			if c.err != nil {
				t.Errorf("%s: %s: %v", c.name, step, c.err)
			}
			return c.err != nil
		})
	}
	loggedIn := func(c *client, o outcome) bool { return o.User == c.user }
	// On a slow machine the server can exceed a short deadline, too.
	noToken := func(_ *client, o outcome) bool { return o.Kind == "TokenError" }
	noTokenYet := func(_ *client, o outcome) bool { return o.Kind == "TokenError" && o.Deadline }

	each("first login", func(c *client) error {
		o := c.logIn(patience, c.dsn)
		c.expired = time.Now().Add(life)
		if !loggedIn(c, o) {
			return fmt.Errorf("%+v, want user %q", o, c.user)
		}
		return nil
	})
	each("logins until the first token has expired", func(c *client) error {
		for begun := time.Now(); !begun.After(c.expired); time.Sleep(pause) {
			begun = time.Now()
			if o := c.logIn(patience, c.dsn); !loggedIn(c, o) {
				return fmt.Errorf("%+v, want user %q", o, c.user)
			}
		}
		return nil
	})
	each("login as another user", func(c *client) error {
		o := c.logIn(patience, c.dsn+"&user="+other.Name)
		if o.Kind != "LoginError" || !strings.Contains(o.Error, "role") {
			return fmt.Errorf("%+v, want a LoginError with a hint", o)
		}
		return nil
	})

	s.SetFaults(entrapgtest.Faults{Entra: entrapgtest.EntraServerError})
	each("TokenError while Entra is down", func(c *client) error {
		_, err := c.until(time.Second, noToken)
		return err
	})

	s.SetFaults(entrapgtest.Faults{EntraDelay: 3 * time.Second})
	each("TokenError with the caller's deadline while Entra is slow", func(c *client) error {
		_, err := c.until(300*time.Millisecond, noTokenYet)
		return err
	})
	each("login after the outage", func(c *client) error {
		_, err := c.until(patience, loggedIn)
		return err
	})

	// Only a user's token for the database contains the name.
	if n := s.Tenant.RequestsFor("https://management.azure.com"); !t.Failed() && n != programs {
		t.Errorf("%d requests for Azure Resource Manager, want 1 for each of %d identities", n, programs)
	}
}

const (
	patience = time.Minute // limit for steps that must succeed, even on a slow machine
	pause    = time.Second // between logins
)

// A client logs in one way.
type client struct {
	name    string
	user    string
	dsn     string
	logIn   func(limit time.Duration, dsn string) outcome
	expired time.Time // by then, the first token has expired
	err     error     // of the step that failed
}

// until logs in repeatedly until wanted accepts the outcome.
func (c *client) until(limit time.Duration, wanted func(*client, outcome) bool) (last outcome, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(pause) {
		if last = c.logIn(limit, c.dsn); wanted(c, last) {
			return last, nil
		}
	}
	return last, fmt.Errorf("not within %v; last login: %+v", patience, last)
}

// start returns a function that logs in this way, in a child process or in this one.
func (w way) start(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) func(time.Duration, string) outcome {
	if w.code == nil {
		return startProgram(t, w.env(t, s, p))
	}
	credential := w.code(t, s, p)
	pools := map[string]*sql.DB{}
	return func(limit time.Duration, dsn string) outcome {
		if pools[dsn] == nil {
			pools[dsn], _ = open(t, dsn, entrapg.WithCredential(credential), entrapg.WithLogger(nil))
			pools[dsn].SetMaxIdleConns(0)
		}
		return login(pools[dsn], limit)
	}
}

func virtualMachine(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) azcore.TokenCredential {
	options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: policy.ClientOptions{Transport: s.Tenant.NewHost(p).Client()}}
	credential, err := azidentity.NewManagedIdentityCredential(options)
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

func assertion(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) azcore.TokenCredential {
	credential, err := azidentity.NewClientAssertionCredential(s.Tenant.ID, p.ClientID,
		func(context.Context) (string, error) { return p.FederatedToken() },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: s.Tenant.ClientOptions(), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

// workload returns the variables that the webhook of Microsoft Entra Workload ID sets in a pod.
func workload(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
	return append(workloadUnnamed(t, s, p), "AZURE_CLIENT_ID="+p.ClientID, "AZURE_TENANT_ID="+s.Tenant.ID)
}

func workloadUnnamed(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
	token, err := p.FederatedToken()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"AZURE_FEDERATED_TOKEN_FILE=" + file, "AZURE_AUTHORITY_HOST=" + s.Tenant.URL(),
		"SSL_CERT_FILE=" + s.CAFile(),
	}
}

func certificateInEnvironment(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
	certificate, key := selfSigned(t)
	p.Certificates = append(p.Certificates, certificate)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	file := filepath.Join(t.TempDir(), "client.pem")
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"AZURE_CLIENT_CERTIFICATE_PATH=" + file, "SSL_CERT_FILE=" + s.CAFile()}
	for _, variable := range p.Environ() {
		if !strings.HasPrefix(variable, "AZURE_CLIENT_SECRET=") {
			env = append(env, variable)
		}
	}
	return env
}

func selfSigned(t *testing.T) (*x509.Certificate, crypto.PrivateKey) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}
