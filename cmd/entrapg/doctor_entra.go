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
	"github.com/entrapg/entrapg/internal/credfail"
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

func (d *diagnosis) noToken(err *entrapg.TokenError) *trouble {
	found := credfail.Classify(err.Err)
	return &trouble{Said: condense(err.Err.Error()), Means: found.Hint, Fix: d.fixCredential(found.Kind)}
}

// fixCredential returns what to type to get a token from the credential.
func (d *diagnosis) fixCredential(kind credfail.Kind) []string {
	const tenants, logIn = "az account show --query tenantId --output tsv", "az login"
	client := shell(cmp.Or(os.Getenv("AZURE_CLIENT_ID"), "CLIENT_ID"))
	switch kind {
	case credfail.WrongSecret, credfail.ExpiredSecret:
		return []string{"az ad app credential reset --id " + client}
	case credfail.UnregisteredCertificate:
		return []string{"az ad app credential list --id " + client + " --cert"}
	case credfail.InvalidAssertion:
		return []string{"date -u"}
	case credfail.NotFederated:
		return []string{"az ad app federated-credential list --id " + client}
	case credfail.UnknownApplication:
		return []string{"az ad app show --id " + client, tenants}
	case credfail.UnknownTenant:
		return []string{tenants}
	case credfail.InvalidScope, credfail.UnknownResource:
		return d.fixScope(nil)
	case credfail.NeedsSecondFactor:
		return []string{"az login --scope " + cmp.Or(d.tableScope(), "SCOPE")}
	case credfail.LoginExpired, credfail.NoEndpoint, credfail.NoIdentity:
		return []string{logIn}
	case credfail.NotLoggedIn:
		switch d.login.Credential {
		case "AzureDeveloperCLICredential":
			return []string{"azd auth login"}
		case "AzurePowerShellCredential":
			return []string{"Connect-AzAccount"}
		default:
			return []string{logIn}
		}
	case credfail.NoSuchIdentity, credfail.SeveralIdentities:
		return []string{"az identity list --query '[].{name:name,clientId:clientId}' --output table"}
	case credfail.UntrustedCertificate:
		return []string{"apt-get update && apt-get install -y ca-certificates"}
	case credfail.AzureCLIMissing:
		return []string{"curl -sL https://aka.ms/InstallAzureCLIDeb | sudo bash && az login"}
	default:
		return nil
	}
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
		t.Fix = []string{"user=ROLE"}
		return t
	}
	if !d.login.Entra() {
		f.note("%s, from the DSN, its service or PGUSER", d.token.User)
		return nil
	}
	f.note("%s, from %s", d.token.User, rule(d.login, d.token))
	if lookup := new(entrapg.TokenError); errors.As(d.token.Lookup, &lookup) {
		f.warn(&trouble{
			Said: condense(lookup.Err.Error()),
			Means: "the request for a token for Azure Resource Manager, which names a managed identity, failed; " +
				"if the role has another name than this user, set user to it",
		})
	}
	return nil
}
