package emulator

import "github.com/entrapg/entrapg/entrapgtest"

const description = "Starts a PostgreSQL that checks Entra tokens as Azure does, an Entra tenant, and a managed identity " +
	"endpoint, on fixed ports, until Ctrl-C, SIGTERM or SIGHUP. It prints settings for programs, to paste into a " +
	"shell, and then a line for each login with the result and the reason. It requires the programs of " +
	"PostgreSQL on this machine, or another server set by --upstream.\n" +
	"Each principal gets a role of the same name. An administrator, db-admin unless --admin names others, can " +
	"create roles in the database postgres as on Azure, with pgaadauth_create_principal and the other functions " +
	"of pgaadauth, and map existing roles with SECURITY LABEL for \"pgaadauth\". With --no-roles, your own scripts " +
	"create the roles.\n" +
	"A principals file has a line for each principal: its kind (admin, user, guest, group, identity, system or " +
	"service), its name, and the members of a group. Quote names that contain spaces. An administrator whose name " +
	"contains @ is a user. The name of a system identity is the part of its resource ID after /providers/, such as " +
	"Microsoft.Web/sites/shop. Without a principal that is not an administrator or a group, the emulator " +
	"creates the identity shop-api, which is also the member of groups that have none.\n" +
	"The settings are for one principal: the first identity or, without one, the first other principal. With --as, " +
	"the emulator prints settings for each principal that you name. The settings for a group log one of its members " +
	"in as the group. Settings do not log in as an administrator, unless you name it with --as.\n" +
	"The settings work for entrapg, for psql, and for programs that use Microsoft's libraries. The same code works " +
	"for each kind of principal, because AZURE_TOKEN_CREDENTIALS selects the credential:\n" +
	"Go: azidentity.NewDefaultAzureCredential with DisableInstanceDiscovery: true in its options. On macOS and Windows, " +
	"Go ignores SSL_CERT_FILE, which users, guests and service principals need: set GODEBUG=x509usefallbackroots=1 and " +
	"call x509.SetFallbackRoots with a pool that contains the certificates of that file. The entrapg command does so.\n" +
	"Node.js: new DefaultAzureCredential({ disableInstanceDiscovery: true }) of @azure/identity.\n" +
	"Python: DefaultAzureCredential(disable_instance_discovery=True) of azure-identity. For users and guests, it ignores " +
	"the tenant's port: start the emulator with --tenant-addr 127.0.0.1:443.\n" +
	"In each language, get a token for " + entrapgtest.DefaultScope + ", and log in to DATABASE_URL " +
	"with the token as the password and PGUSER as the user. SSL_CERT_FILE and REQUESTS_CA_BUNDLE replace the " +
	"certificates that a program trusts otherwise.\n" +
	"An address is HOST:PORT, or a port of 127.0.0.1. Each flag can be set by its environment variable; several " +
	"values are separated by newlines. https://github.com/entrapg/entrapg/blob/main/docs/emulator.md describes the " +
	"image of the emulator, Compose and CI.\n" +
	"With --state, the certificate authority, the tenant, client IDs, secrets and data are the same at each start, so " +
	".env files and settings of an IDE remain valid. The principals are those of the flags: name them at each start. " +
	"Only PGPASSWORD, which is a token, expires."
