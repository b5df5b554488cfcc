package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/imds"
)

func (d *diagnosis) askToken(ctx context.Context, f *finding) *trouble {
	start := time.Now()
	token, err := d.login.Token(ctx, true)
	var noUser *entrapg.UsernameError
	var failed *entrapg.TokenError
	switch {
	case errors.As(err, &noUser): // that is another step's
		d.noUser = err
	case errors.As(err, &failed):
		return d.noToken(failed)
	case err != nil:
		return &trouble{Said: err.Error()}
	}
	d.token = token
	if !d.login.Entra() {
		return nil
	}
	f.note("%s gave a token in %s", d.tried.name(d.login.Credential), milliseconds(time.Since(start)))
	for _, member := range d.tried.notSetUp() {
		f.note("not set up is %s", member)
	}
	return nil
}

// entraSays gives what Entra and the credentials say a meaning. The first row that
// is in their words wins. In what mends it, names in braces are the user's own.
var entraSays = []struct {
	words, means string
	mend         []string
}{
	{"AADSTS7000215", "the client secret is wrong: it has to be the secret's value, not its ID", []string{"az ad app credential reset --id {client}"}},
	{"AADSTS7000222", "the client secret has expired", []string{"az ad app credential reset --id {client}"}},
	{"AADSTS700016", "the tenant has no such application: AZURE_CLIENT_ID or AZURE_TENANT_ID is another's", []string{"az ad app show --id {client}", "az account show --query tenantId --output tsv"}},
	{"AADSTS7000218", "the application has to prove itself, and no secret or certificate was given: set AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH", nil},
	{"AADSTS700027", "the certificate is not registered with the application", []string{"az ad app credential list --id {client} --cert"}},
	{"AADSTS700024", "the clock of this machine, or the federated token's life, is off", []string{"date -u"}},
	{"AADSTS70021", "no federated credential of the identity fits this workload: issuer, subject and audience have to be those that Entra names", []string{"az ad app federated-credential list --id {client}"}},
	{"AADSTS90002", "there is no such tenant in this cloud: check AZURE_TENANT_ID, and AZURE_AUTHORITY_HOST in national clouds", []string{"az account show --query tenantId --output tsv"}},
	{"AADSTS500011", "the tenant does not know what the token is to be for: the scope is of another cloud", nil},
	{"AADSTS50076", "the tenant wants a second factor, which only a person can give", []string{"az login --scope {scope}"}},
	{"AADSTS50079", "the tenant wants a second factor, which only a person can give", []string{"az login --scope {scope}"}},
	{"AADSTS700082", "the login on this machine is too old", []string{"az login"}},
	{"AADSTS70043", "the login on this machine is too old", []string{"az login"}},
	{"AADSTS50173", "the login on this machine was revoked", []string{"az login"}},
	{"AADSTS50126", "the user's name or password is wrong", nil},
	{"AADSTS50034", "there is no such user in the tenant: check AZURE_USERNAME and AZURE_TENANT_ID", nil},
	{"AADSTS90055", "Entra is asked too often at the moment: wait a minute", nil},
	{"AADSTS90033", "Entra has trouble at the moment: try again in a minute", nil},
	{"AADSTS50000", "Entra has trouble at the moment: try again in a minute", nil},
	{"No User Assigned or Delegated Managed Identity found", "this host has no such managed identity: assign it, or set AZURE_CLIENT_ID to the client ID of one that it has", []string{"az identity list --query '[].{{name:name,clientId:clientId}}' --output table"}},
	{"Identity not found", "this host has no such managed identity: assign it, or set AZURE_CLIENT_ID to the client ID of one that it has", []string{"az identity list --query '[].{{name:name,clientId:clientId}}' --output table"}},
	{"isn't assigned to this resource", "this host has no such managed identity: assign it, or set AZURE_CLIENT_ID to the client ID of one that it has", []string{"az identity list --query '[].{{name:name,clientId:clientId}}' --output table"}},
	{"Multiple user assigned identities", "this host has several identities: set AZURE_CLIENT_ID, or entra_client_id in the DSN, to the client ID of the one that is meant", []string{"az identity list --query '[].{{name:name,clientId:clientId}}' --output table"}},
	{"certificate signed by unknown authority", "a proxy looks into the connection to Entra, or this machine has no roots: have it trust the proxy's certificate, or install the system's roots", []string{"apt-get update && apt-get install -y ca-certificates"}},
	{"certificate is not trusted", "a proxy looks into the connection to Entra: have this machine trust the proxy's certificate", nil}, // macOS's words
	{"no such host", "Entra's name cannot be looked up from here: check the network, and HTTPS_PROXY where there is a proxy", nil},
	{"connection reset", "the connection to Entra is cut: check the network, and HTTPS_PROXY where there is a proxy", nil},
	{"connection refused", "Entra, or the endpoint of managed identities, cannot be reached: check IDENTITY_ENDPOINT, and HTTPS_PROXY where there is a proxy", nil},
	{"actively refused", "Entra, or the endpoint of managed identities, cannot be reached: check IDENTITY_ENDPOINT, and HTTPS_PROXY where there is a proxy", nil}, // Windows' words
	{"forcibly closed", "the connection to Entra is cut: check the network, and HTTPS_PROXY where there is a proxy", nil},
	{"az login", "nobody is logged in on this machine", []string{"az login"}},
	{"DefaultAzureCredential: failed to acquire a token", "no member of DefaultAzureCredential found an identity here: log in, or, for a service principal, set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET", []string{"az login"}},
	{"Azure CLI not found", "the Azure CLI is not installed, or not on PATH", []string{"curl -sL https://aka.ms/InstallAzureCLIDeb | sudo bash && az login"}},
	{imds.NoEndpoint, "this machine has no managed identity; run the program on an Azure host that has one, or log in here", []string{"az login"}},
	{"no answer within", "Entra, or the endpoint of managed identities, does not answer from here: check the network, and HTTPS_PROXY where there is a proxy", nil},
	{"missing environment variable", "EnvironmentCredential wants AZURE_TENANT_ID, AZURE_CLIENT_ID, and AZURE_CLIENT_SECRET or a certificate", nil},
}

func (d *diagnosis) noToken(err *entrapg.TokenError) *trouble {
	t := &trouble{Said: condense(err.Err.Error())}
	fill := strings.NewReplacer(
		"{{", "{", "}}", "}",
		"{client}", shell(cmp.Or(os.Getenv("AZURE_CLIENT_ID"), "CLIENT_ID")),
		"{scope}", d.login.Scope,
	)
	for _, row := range entraSays {
		if strings.Contains(t.Said, row.words) {
			t.Means = row.means
			for _, line := range row.mend {
				t.Mend = append(t.Mend, fill.Replace(line))
			}
			break
		}
	}
	return t
}

// nested are the tabs by which a chain of credentials sets off what its members say.
var nested = regexp.MustCompile(`(?m)^\t+`)

// dump is how azidentity shows a response.
var dump = regexp.MustCompile(`(?s)\s*(?:GET|POST) https?://\S+\n-{10,}\nRESPONSE (\d+)[^\n]*\n-{10,}\n(.*?)\n-{10,}\n?`)

// condense leaves of responses what they say.
func condense(text string) string {
	text = nested.ReplaceAllString(text, "")
	text = dump.ReplaceAllStringFunc(text, func(found string) string {
		parts := dump.FindStringSubmatch(found)
		var body struct {
			Description string `json:"error_description"`
			Message     string `json:"message"`
		}
		said := parts[2]
		if json.Unmarshal([]byte(said), &body) == nil {
			said = cmp.Or(body.Description, body.Message, said)
		}
		return "\nHTTP " + parts[1] + ": " + said + "\n"
	})
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
	return strings.Join(lines, "\n")
}

func (d *diagnosis) readToken(_ context.Context, f *finding) *trouble {
	if d.token == nil || !d.login.Entra() {
		return nil
	}
	left := round(time.Until(d.token.Expires))
	c, err := claims.Parse(d.token.Value)
	if err != nil {
		f.note("%d bytes, good for %s; %v", len(d.token.Value), left, err)
		return nil
	}
	d.claims = c
	f.note("of a %s, good for %s, %d bytes", c.Kind(), left, len(d.token.Value))
	f.note("for %s", c.Text("aud"))
	f.note("tenant %s", c.Text("tid"))
	f.note("object ID %s", c.Text("oid"))
	if want := strings.TrimSuffix(d.login.Scope, "/.default"); c.Text("aud") != want {
		f.warn(&trouble{Means: fmt.Sprintf("the scope asks for %s, and the token is for something else", want)})
	}
	return nil
}

func (d *diagnosis) nameUser(_ context.Context, f *finding) *trouble {
	if d.noUser != nil {
		t := &trouble{Said: strings.TrimPrefix(d.noUser.Error(), "entrapg: "), Means: "the token does not tell the role: set it in the DSN"}
		t.Mend = []string{"user=" + shell("ROLE")}
		return t
	}
	if !d.login.Entra() {
		f.note("%s, from the DSN, its service or PGUSER", d.token.User)
		return nil
	}
	f.note("%s, from %s", d.token.User, rule(d.login, d.token))
	return nil
}
