package doctor

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// fixes creates lines to paste, with comments that say where to paste them. They can contain quoted
// names of this login, a host name of a verified certificate, and a group ID (a GUID) from the server's
// message. They contain no other text from a server.
type fixes struct{ *state }

// asAdministrator is the comment before SQL that provisions roles.
const asAdministrator = "-- as an Entra administrator of the server, in the database postgres"

// set returns the lines that set a setting: in the place where it is set already,
// otherwise in the DSN, or in the environment if there is no DSN.
func (f fixes) set(key, value string) []string {
	origin, variable := f.settings()[key].Origin, connstring.Variable(key)
	switch {
	case variable != "" && (origin == variable || origin == "" && strings.TrimSpace(f.dsn) == ""):
		return []string{"# in the environment", quote.Export(variable, value)}
	case origin != "" && origin != connstring.OriginDSN:
		return []string{quote.Comment("# in the " + origin), quote.ServiceSetting(key, value)}
	}
	return []string{quote.Comment("# in " + f.origin(key)), quote.DSNSetting(connstring.IsURL(f.dsn), key, value)}
}

// drop returns the lines that remove a setting, or nil if it is not set.
func (f fixes) drop(key string) []string {
	switch origin := f.settings()[key].Origin; origin {
	case "":
		return nil
	case connstring.OriginDSN:
		return []string{quote.Comment("# in " + f.origin(key) + ": remove " + key)}
	case connstring.Variable(key):
		return []string{quote.Unset(origin)}
	default:
		return []string{quote.Comment("# in the " + origin + ": remove " + key)}
	}
}

// replace returns the lines that remove a key and, unless by is "", set by to its
// value. The value is shown only if by is a known key.
func (f fixes) replace(key, by string) []string {
	lines, value := f.drop(key), f.settings().Value(key)
	switch {
	case lines == nil || by == "" || by == key:
	case by == "sslmode":
		lines = append(lines, f.set(by, "verify-full")...)
	case slices.Contains(knownKeys, by) && value != "":
		lines = append(lines, f.set(by, value)...)
	default:
		lines = append(lines, "# perhaps "+by+" is meant")
	}
	return lines
}

// choose returns the lines that set a setting that selects an identity: a key of the DSN,
// or a variable that azidentity reads.
func (f fixes) choose(name, value string) []string {
	if strings.HasPrefix(name, "entra_") {
		return f.set(name, value)
	}
	return []string{"# in the environment", quote.Export(name, value)}
}

// chooseIdentity returns the lines that set the client ID of the identity.
func (f fixes) chooseIdentity() []string {
	return append([]string{
		"# shows the client IDs of managed identities",
		"az identity list --query '[].{name:name,clientId:clientId}' --output table",
	}, f.choose(cmp.Or(f.login.Identity.ClientID, "AZURE_CLIENT_ID"), "CLIENT_ID")...)
}

// scope returns the lines that set the scope of the hosts' cloud, or otherwise if it
// is set already. It never uses a scope from the server's message, because a server
// could name a scope whose tokens give access to something else.
func (f fixes) scope(otherwise ...string) []string {
	if scope := f.tableScope(); scope != "" && scope != f.login.Scope {
		return f.set("entra_scope", scope)
	}
	return otherwise
}

// tableScope returns the scope of the hosts' cloud by package entrapg's table, or
// "" if a service file sets another.
func (f fixes) tableScope() string {
	cloud, err := inspect.Open(
		connstring.WithDefault("hostaddr='' sslmode=verify-full entra_credential=default", "host", strings.Join(hostsOf(f.endpoints), ",")))
	if err != nil {
		return ""
	}
	defer cloud.Close()
	if cloud.Settings.Value("entra_scope") != "" {
		return ""
	}
	return cloud.Scope
}

// create returns SQL that creates a role for the token's identity.
func (f fixes) create(role string) string {
	if f.claims.Text("oid") == "" {
		return "select * from pgaadauth_create_principal(" + quote.Literal(role) + ", false, false);"
	}
	return f.provisionWithID("create", role)
}

// rebind returns SQL that maps an existing role to the token's identity.
func (f fixes) rebind(role string) string { return f.provisionWithID("update", role) }

func (f fixes) provisionWithID(verb, role string) string {
	return fmt.Sprintf("select * from pgaadauth_%s_principal_with_oid(%s, %s, '%s', false, false);",
		verb, quote.Literal(role), quote.Literal(f.claims.Text("oid")), f.objectType())
}

// label returns SQL that maps an existing role of PostgreSQL, or one of another
// type, to the token's identity.
func (f fixes) label(role string) string {
	return fmt.Sprintf(`security label for "pgaadauth" on role %s is %s;`,
		quote.Identifier(role), quote.Literal("aadauth,oid="+f.claims.Text("oid")+",type="+f.objectType()))
}

// guest returns the lines that set the user to the name of a guest's role.
func (f fixes) guest() []string {
	lines := []string{
		"# shows your user principal name, which contains #EXT#",
		"az ad signed-in-user show --query userPrincipalName --output tsv",
	}
	lines = append(lines, f.set("user", f.claims.GuestName())...)
	return append(lines,
		asAdministrator+": shows the names of the roles", "select * from pgaadauth_list_principals(false);",
		"-- or, if there is none for this guest", f.create(f.claims.GuestName()))
}

// objectType returns the token's kind of identity, as an argument of
// pgaadauth_create_principal_with_oid.
func (f fixes) objectType() string {
	if f.claims != nil && f.claims.Kind() == claims.User {
		return "user"
	}
	return "service"
}

// withPassword returns the lines that log in with a PostgreSQL password instead of a token,
// if all hosts are on this machine, where servers for tests and development are.
func (f fixes) withPassword(hosts []string, comment string) []string {
	if !areLocal(hosts) {
		return nil
	}
	return append([]string{comment}, f.set("entra_credential", "none")...)
}

// firewall returns the lines that add this machine's address to the server's
// firewall.
func (f fixes) firewall(server string) []string {
	return []string{
		"# the public address of this machine",
		"address=$(curl -s https://api.ipify.org)",
		"# older versions of the Azure CLI have --name and --rule-name instead of --server-name and --name",
		"az postgres flexible-server firewall-rule create --resource-group " + resourceGroup(server) +
			" --server-name " + server +
			` --name doctor --start-ip-address "$address" --end-ip-address "$address"`,
	}
}

// logIn returns the lines that log a user in with a developer tool, and make this login use
// the tool.
func (f fixes) logIn() []string {
	switch f.login.Credential {
	case "AzureDeveloperCLICredential":
		return []string{"azd auth login"}
	case "AzurePowerShellCredential":
		return []string{"Connect-AzAccount"}
	case "AzureCLICredential":
		return []string{"az login"}
	case "DefaultAzureCredential":
		const name = "AZURE_TOKEN_CREDENTIALS"
		lines := []string{"# as yourself, with the Azure CLI", "az login"}
		if value := os.Getenv(name); value != "" && !strings.EqualFold(value, "dev") &&
			!strings.EqualFold(value, "AzureCLICredential") {
			lines = append(lines, quote.Unset(name))
		}
		return lines
	default:
		return append([]string{"# as yourself, with the Azure CLI", "az login"}, f.set("entra_credential", "azurecli")...)
	}
}

// commandLine returns the line that runs a subcommand with the same DSN.
func (f fixes) commandLine(subcommand string) string { return dsn.CommandLine(subcommand, f.dsn) }

// source returns the credential that returned the token.
func (f fixes) source() string {
	name, _, _ := strings.Cut(f.tried.Name(f.login.Credential), ",")
	return name
}

// logInAgain returns the lines that replace a user's token: developer tools cache tokens
// until the user logs out.
func (f fixes) logInAgain() []string {
	switch f.source() {
	case "AzureDeveloperCLICredential":
		return []string{"azd auth logout && azd auth login"}
	case "AzurePowerShellCredential":
		return []string{"Disconnect-AzAccount; Connect-AzAccount"}
	case "EnvironmentCredential": // each process requests a token
		return []string{f.commandLine("doctor")}
	default:
		return []string{"az logout && az login"}
	}
}

// setClock returns the command that sets this machine's clock.
func setClock() string {
	switch runtime.GOOS {
	case "windows":
		return "w32tm /resync"
	case "darwin":
		return "sudo sntp -sS time.apple.com"
	default:
		return "sudo timedatectl set-ntp true"
	}
}

// installRoots returns the lines that install the system's root certificates.
func installRoots() []string {
	return []string{
		"apt-get update && apt-get install -y ca-certificates", "# or, on Alpine", "apk add ca-certificates",
	}
}

// installCLI returns the command that installs the Azure CLI.
func installCLI() string {
	switch runtime.GOOS {
	case "windows":
		return "winget install --exact --id Microsoft.AzureCLI"
	case "darwin":
		return "brew install azure-cli"
	default:
		return "curl -sL https://aka.ms/InstallAzureCLIDeb | sudo bash"
	}
}

// serverName returns the name of a server in Azure, or a placeholder. The name can be
// placed inside quotes, because it contains letters, digits and hyphens only.
func serverName(host string) string {
	if name, _, _ := strings.Cut(host, "."); serverPart.MatchString(name) {
		return name
	}
	return "SERVER"
}

// resourceGroup returns a command substitution that finds a server's resource group.
func resourceGroup(server string) string {
	return `"$(az postgres flexible-server list --query "[?name=='` + server + `'].resourceGroup" --output tsv)"`
}
