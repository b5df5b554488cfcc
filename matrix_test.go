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
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// An environment is what an operator sets for a program that is to be a principal.
type environment = func(*testing.T, *entrapgtest.Server, *entrapgtest.Principal) []string

// A way is one of azidentity's credentials and how a program comes to it: by a
// DSN and its environment, or by code.
type way struct {
	principal func(*entrapgtest.Tenant) *entrapgtest.Principal
	dsn       string
	env       environment
	code      func(*testing.T, *entrapgtest.Server, *entrapgtest.Principal) azcore.TokenCredential
}

func ways() map[string]way {
	user := func(t *entrapgtest.Tenant) *entrapgtest.Principal { return t.NewUser("alice@contoso.example") }
	service := func(t *entrapgtest.Tenant) *entrapgtest.Principal { return t.NewServicePrincipal("Shop deployer") }
	userAssigned := func(t *entrapgtest.Tenant) *entrapgtest.Principal { return t.NewUserAssignedIdentity("id-shop") }
	systemAssigned := func(t *entrapgtest.Tenant) *entrapgtest.Principal {
		return t.NewSystemAssignedIdentity("Microsoft.Web/sites/shop")
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
	with := func(env environment, more ...string) environment {
		return func(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
			return append(env(t, s, p), more...)
		}
	}
	secret := func(_ *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
		return append(p.Environ(), "SSL_CERT_FILE="+s.CAFile())
	}
	return map[string]way{
		"managed identity, system-assigned":        {principal: systemAssigned, dsn: "&entra_credential=managedidentity", env: onHost},
		"managed identity, user-assigned":          {principal: userAssigned, dsn: "&entra_credential=managedidentity&entra_client_id={client}", env: onHost},
		"managed identity of a virtual machine":    {principal: systemAssigned, code: virtualMachine},
		"client secret in the environment":         {principal: service, dsn: "&entra_credential=environment", env: secret},
		"client certificate in the environment":    {principal: service, dsn: "&entra_credential=environment", env: certificateInEnvironment},
		"client assertion":                         {principal: service, code: assertion},
		"workload identity":                        {principal: userAssigned, dsn: "&entra_credential=workloadidentity", env: workload},
		"workload identity named in the DSN":       {principal: userAssigned, dsn: "&entra_credential=workloadidentity&entra_client_id={client}&entra_tenant_id={tenant}", env: workloadUnnamed},
		"Azure CLI":                                {principal: user, dsn: "&entra_credential=azurecli", env: developer},
		"Azure Developer CLI":                      {principal: user, dsn: "&entra_credential=azuredevelopercli", env: developer},
		"Azure PowerShell":                         {principal: user, dsn: "&entra_credential=azurepowershell", env: developer},
		"default, on App Service":                  {principal: systemAssigned, env: onHost},
		"default, narrowed to the Azure CLI":       {principal: user, env: with(developer, "AZURE_TOKEN_CREDENTIALS=AzureCLICredential")},
		"default, narrowed to production's":        {principal: service, dsn: "&entra_credential=default", env: with(secret, "AZURE_TOKEN_CREDENTIALS=prod")},
		"default, narrowed to development's tools": {principal: user, env: with(developer, "AZURE_TOKEN_CREDENTIALS=dev")},
	}
}

// TestEveryCredential takes each of azidentity's credentials through a program's
// life, with a tenant of its own, and a real PostgreSQL.
func TestEveryCredential(t *testing.T) {
	for name, w := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.test(t)
		})
	}
}

func (w way) test(t *testing.T) {
	s := start(t, entrapgtest.Config{TokenLife: 3 * time.Second})
	p := w.principal(s.Tenant)
	createRole(t, s, "", p)
	somebody := s.Tenant.NewUser("bob@contoso.example")
	createRole(t, s, "", somebody)

	dsn := s.DSN() + strings.NewReplacer("{client}", p.ClientID, "{tenant}", s.Tenant.ID).Replace(w.dsn)
	logIn := w.start(t, s, p)
	const patience = 20 * time.Second
	// until logs in with a deadline until the outcome is as wanted.
	until := func(what string, limit time.Duration, wanted func(outcome) bool) outcome {
		t.Helper()
		var last outcome
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if last = logIn(limit, dsn); wanted(last) {
				return last
			}
		}
		t.Fatalf("%s: not within a minute; the last login: %+v", what, last)
		return last
	}
	requests := func() int { return s.Tenant.RequestsFor("https://ossrdbms-aad.database.windows.net") }

	if o := logIn(patience, dsn); o.User != p.Name {
		t.Fatalf("the first login: %+v, want user %q", o, p.Name)
	}

	first := requests()
	until("a login with the next token", patience, func(o outcome) bool {
		if o.Error != "" {
			t.Fatalf("while the token was replaced: %s", o.Error)
		}
		return requests() > first
	})

	o := logIn(patience, dsn+"&user="+somebody.Name)
	if o.Kind != "LoginError" || !strings.Contains(o.Error, "role") {
		t.Errorf("as somebody else: %+v, want a LoginError with a hint", o)
	}

	s.SetFaults(entrapgtest.Faults{Entra: entrapgtest.EntraFails})
	// On a slow machine the server, too, may be too slow for such a deadline.
	noToken := func(o outcome) bool { return o.Kind == "TokenError" }
	until("a login that lacks a token, Entra being down", time.Second, noToken)
	s.SetFaults(entrapgtest.Faults{})
	until("a login once Entra is back", patience, func(o outcome) bool { return o.User == p.Name })

	s.SetFaults(entrapgtest.Faults{EntraDelay: 2 * time.Second})
	o = until("a login that lacks a token, Entra being slow", 300*time.Millisecond, noToken)
	if !o.Deadline {
		t.Errorf("with a slow Entra: %+v, want the caller's own deadline", o)
	}
	until("a login that waits for a slow Entra", patience, func(o outcome) bool { return o.User == p.Name })
	s.SetFaults(entrapgtest.Faults{})

	if nameless := p.Kind == entrapgtest.UserAssignedIdentity || p.Kind == entrapgtest.SystemAssignedIdentity; nameless {
		if n := s.Tenant.RequestsFor("https://management.azure.com"); n != 1 {
			t.Errorf("%d requests to find the user's name, want 1 for all tokens of the identity", n)
		}
	}
}

// start returns how to log in this way, in a process of its own or in this one.
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

// workload is what the webhook of Microsoft Entra Workload ID sets in a pod.
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
	return []string{"AZURE_FEDERATED_TOKEN_FILE=" + file, "AZURE_AUTHORITY_HOST=" + s.Tenant.URL(), "SSL_CERT_FILE=" + s.CAFile()}
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
