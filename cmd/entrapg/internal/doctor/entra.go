package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/credfail"
)

// entraSteps request a token and read it.
type entraSteps struct{ *state }

func (s entraSteps) requestToken(ctx context.Context, f *finding) *problem {
	start := time.Now()
	token, err := s.login.Token(ctx, true)
	var noUser *entrapg.UsernameError
	var failed *entrapg.TokenError
	switch {
	case errors.As(err, &noUser): // another step reports that
		s.noUser = err
	case errors.As(err, &failed):
		return s.noToken(failed)
	case err != nil:
		return &problem{Error: err.Error(), Fix: s.investigate(err.Error())}
	}
	s.token = token
	if !s.login.Entra() {
		return nil
	}
	f.note("%s returned a token in %s", s.tried.Name(s.login.Credential), terminal.Milliseconds(time.Since(start)))
	for _, member := range s.tried.NotSetUp() {
		f.note("not set up: %s", member)
	}
	return nil
}

func (s entraSteps) noToken(err *entrapg.TokenError) *problem {
	found := credfail.Classify(err.Err, s.login.Identity)
	switch found.Kind {
	case credfail.NoEndpoint, credfail.NoIdentity, credfail.NoSuchIdentity, credfail.NoAnswer:
		if os.Getenv("IDENTITY_ENDPOINT") != "" && os.Getenv("IDENTITY_HEADER") == "" &&
			os.Getenv("MSI_ENDPOINT") == "" && os.Getenv("IMDS_ENDPOINT") == "" {
			const hint = "IDENTITY_ENDPOINT is not used, because IDENTITY_HEADER is not set; set both, or remove both"
			return &problem{
				Error: credfail.Condense(err.Err.Error()), Explanation: hint,
				Fix: []string{quote.Export("IDENTITY_HEADER", "HEADER")},
			}
		}
	}
	p := &problem{Error: credfail.Condense(err.Err.Error()), Explanation: found.Hint, Fix: s.fix(found.Kind)}
	if len(p.Fix) == 0 {
		p.Fix = s.investigate(p.Error)
	}
	return p
}

// entraCode matches the code of an error of Entra.
var entraCode = regexp.MustCompile(`\bAADSTS(\d{4,9})\b`)

// investigate returns the lines that tell more about an error without a known fix.
func (s entraSteps) investigate(text string) []string {
	if code := entraCode.FindStringSubmatch(text); code != nil {
		return []string{"# Microsoft describes this error at https://login.microsoftonline.com/error?code=" + code[1]}
	}
	discard := "/dev/null"
	if runtime.GOOS == "windows" {
		discard = "$null"
	}
	return []string{
		"# logs the requests for tokens, without secrets",
		quote.Export("AZURE_SDK_GO_LOGGING", "all"), fixes(s).commandLine("token") + " >" + discard,
	}
}

// fix returns the lines that fix a failed token request.
func (s entraSteps) fix(kind credfail.Kind) []string {
	fix := fixes(s)
	const tenants = "az account show --query tenantId --output tsv"
	client := quote.Shell(cmp.Or(s.clientID(), "CLIENT_ID"))
	switch kind {
	case credfail.WrongSecret, credfail.ExpiredSecret:
		return []string{
			"# prints a new secret as password, and the existing ones remain",
			"az ad app credential reset --append --id " + client, quote.Export("AZURE_CLIENT_SECRET", "SECRET"),
		}
	case credfail.UnregisteredCertificate:
		return []string{"az ad app credential list --id " + client + " --cert"}
	case credfail.MissingClientCredential:
		return []string{quote.Export("AZURE_CLIENT_SECRET", "SECRET")}
	case credfail.InvalidAssertion:
		return []string{"date -u", setClock()}
	case credfail.NotFederated:
		return []string{"az ad app federated-credential list --id " + client}
	case credfail.UnknownApplication:
		return []string{
			"# shows whether the tenant has the application, and which tenant you are logged in to",
			"az ad app show --id " + client,
			tenants,
		}
	case credfail.UnknownTenant:
		return append([]string{tenants}, fix.choose(cmp.Or(s.login.Identity.TenantID, "AZURE_TENANT_ID"), "TENANT_ID")...)
	case credfail.InvalidScope, credfail.UnknownResource:
		return fix.scope(fix.drop("entra_scope")...)
	case credfail.NeedsSecondFactor:
		return []string{"az login --scope " + cmp.Or(fix.tableScope(), "SCOPE")}
	case credfail.LoginExpired, credfail.NoIdentity, credfail.NotLoggedIn, credfail.NoEndpoint:
		return append(fix.logIn(),
			fix.withPassword(hostsOf(s.endpoints), "# or, for a server without Entra: with a PostgreSQL password")...)
	case credfail.WrongPassword:
		return []string{quote.Export("AZURE_USERNAME", "NAME@DOMAIN"), quote.Export("AZURE_PASSWORD", "PASSWORD")}
	case credfail.UnknownUser:
		return append(
			[]string{quote.Export("AZURE_USERNAME", "NAME@DOMAIN")},
			fix.choose(cmp.Or(s.login.Identity.TenantID, "AZURE_TENANT_ID"), "TENANT_ID")...)
	case credfail.NoSuchIdentity, credfail.SeveralIdentities:
		return fix.chooseIdentity()
	case credfail.StaleSecret, credfail.StaleEndpoint:
		return []string{
			"# open a new console of the app, or, for variables that come from a file, read the file again:",
			"set -a; . FILE; set +a",
		}
	case credfail.UntrustedCertificate:
		return installRoots()
	case credfail.Unreachable:
		return []string{"curl -sS -o /dev/null " +
			quote.Shell(cmp.Or(os.Getenv("AZURE_AUTHORITY_HOST"), "https://login.microsoftonline.com/"))}
	case credfail.Proxy:
		return []string{"env | grep -i _proxy"}
	case credfail.AzureCLIMissing:
		return []string{installCLI(), "az login"}
	case credfail.ToolMissing:
		if s.login.Credential == "AzurePowerShellCredential" {
			return []string{"# in PowerShell 7, pwsh", "Install-Module Az.Accounts; Connect-AzAccount"}
		}
		return []string{"curl -fsSL https://aka.ms/install-azd.sh | bash", "azd auth login"}
	case credfail.NotInPod:
		return append([]string{
			"# in AKS: shows the label of the pod, which must be true, and its service account",
			`kubectl get pod POD --output jsonpath='{.metadata.labels.azure\.workload\.identity/use} {.spec.serviceAccountName}'`,
			"# elsewhere:",
		}, fix.set("entra_credential", "default")...)
	case credfail.NotConfigured:
		return s.configure()
	case credfail.Throttled, credfail.ServiceFailed, credfail.NoAnswer:
		return []string{"# in a minute", fix.commandLine("doctor")}
	default:
		return nil
	}
}

// clientID returns the client ID that is set.
func (s entraSteps) clientID() string {
	return cmp.Or(s.login.Settings.Value("entra_client_id"), os.Getenv("AZURE_CLIENT_ID"))
}

// configure returns the lines that set the missing variables of the credential.
func (s entraSteps) configure() []string {
	if s.login.Credential == "DefaultAzureCredential" {
		if client, ok := os.LookupEnv("AZURE_CLIENT_ID"); ok && client == "" {
			return []string{quote.Unset("AZURE_CLIENT_ID")}
		}
		return []string{quote.Unset("AZURE_TOKEN_CREDENTIALS")}
	}
	var lines []string
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID"} {
		if os.Getenv(name) == "" {
			lines = append(lines, quote.Export(name, strings.TrimPrefix(name, "AZURE_")))
		}
	}
	switch {
	case os.Getenv("AZURE_USERNAME") != "" && os.Getenv("AZURE_PASSWORD") == "":
		lines = append(lines, quote.Export("AZURE_PASSWORD", "PASSWORD"))
	case os.Getenv("AZURE_CLIENT_SECRET") == "" && os.Getenv("AZURE_CLIENT_CERTIFICATE_PATH") == "":
		lines = append(lines, quote.Export("AZURE_CLIENT_SECRET", "SECRET"))
	}
	return lines
}

func (s entraSteps) readToken(_ context.Context, f *finding) *problem {
	if s.token == nil || !s.login.Entra() {
		return nil
	}
	left := terminal.Duration(time.Until(s.token.Expires))
	c, err := claims.Parse(s.token.Value)
	if err != nil {
		f.note("%d bytes, expires in %s; %v", len(s.token.Value), left, err)
		return nil
	}
	s.claims = c
	f.note("of a %s, expires in %s, %d bytes", s.principal(), left, len(s.token.Value))
	f.note("audience %s", c.Text("aud"))
	f.note("tenant %s", c.Text("tid"))
	f.note("object ID %s", c.Text("oid"))
	if want := strings.TrimSuffix(s.login.Scope, "/.default"); c.Text("aud") != want {
		f.warn(&problem{Explanation: fmt.Sprintf("the scope is for %s, but the token is for another audience", want)})
	}
	return nil
}

func (s entraSteps) nameUser(_ context.Context, f *finding) *problem {
	fix := fixes(s)
	if s.noUser != nil {
		p := &problem{
			Error:       strings.TrimPrefix(s.noUser.Error(), "entrapg: "),
			Explanation: "the token does not identify a role; set user in the DSN", Fix: fix.set("user", "ROLE"),
		}
		if s.claims.Guest() {
			p.Explanation, p.Fix = claims.GuestRole+"; set user to that name", fix.guest()
		}
		return p
	}
	if !s.login.Entra() {
		f.note("%s, from %s", s.user(), s.origin("user"))
		return nil
	}
	if s.token.Claim == "" {
		f.note("%s, from %s", s.user(), s.origin("user"))
		return nil
	}
	f.note("%s, from the claim %s", s.user(), s.token.Claim)
	if s.claims.Guest() && !strings.Contains(s.user(), "#EXT#") {
		f.note("%s; set user to that name", claims.GuestRole)
	}
	if lookup := new(entrapg.TokenError); errors.As(s.token.Lookup, &lookup) {
		f.warn(&problem{
			Error: credfail.Condense(lookup.Err.Error()),
			Explanation: "the request for a token for Azure Resource Manager, which names a managed identity, failed; " +
				"if the role has another name than this user, set user to it",
		})
	}
	return nil
}
