package pgfail

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A message is what an error response has to contain for a diagnosis.
type message struct {
	code      string   // the SQLSTATE begins with it
	fragments []string // the text contains them all, in any case
	diagnosis Diagnosis
}

func (m message) matches(code, text string) bool {
	for _, fragment := range m.fragments {
		if !strings.Contains(text, strings.ToLower(fragment)) {
			return false
		}
	}
	return strings.HasPrefix(code, m.code)
}

// lookUp returns the diagnosis of the first message in table that matches.
func lookUp(table []message, e *pgconn.PgError) Diagnosis {
	text := strings.ToLower(e.Message + "\n" + e.Detail + "\n" + e.Hint)
	for _, m := range table {
		if m.matches(e.Code, text) {
			return m.diagnosis
		}
	}
	return Diagnosis{}
}

// messages are those that name the problem. Microsoft has worded its messages in
// two ways ("does not" and "doesn't", "retry" and "try again"), so the fragments
// keep to what both have in common. Some are documented at
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure,
// the others come from public reports.
var messages = []message{
	{"", []string{"access token", "expired"}, Diagnosis{
		TokenExpired,
		"the token expired before the server checked it; check that the clock of this machine is right",
	}},
	{"", []string{"valid audience claim", "token.postgres.cosmos.azure.com"}, Diagnosis{
		CosmosAudience,
		"the token is for another service; for Azure Cosmos DB for PostgreSQL, " +
			"set entra_scope=https://token.postgres.cosmos.azure.com/.default",
	}},
	{"", []string{"valid audience claim"}, Diagnosis{
		WrongAudience,
		"the token is for another service or cloud; omit entra_scope, or set it to the scope of the server's cloud",
	}},
	{"", []string{"access token", "invalid format"}, Diagnosis{
		MalformedToken,
		"the token was changed or truncated; pass it exactly as the credential returned it",
	}},
	{"", []string{"error occurred while validating the access token"}, notAToken},
	{"28", []string{"OAuth bearer authentication failed"}, notAToken}, // PostgreSQL 18
	{"", []string{"valid oid claim"}, Diagnosis{
		NoObjectID,
		"the token has no object ID; log in as a user, a service principal or a managed identity",
	}},
	{"", []string{"cannot generate", "AAD_AUTH_TOKENTYPE_APP_USER"}, Diagnosis{
		UserTokenForService,
		"a user's token was used for the role of a service principal; log in as that service principal, " +
			"set user to your own role, or create the role again with type user",
	}},
	{"", []string{"is neither", "AAD_AUTH_TOKENTYPE_APP_USER"}, Diagnosis{
		ServiceTokenForUser,
		"the token of an application or managed identity was used for a user's role; " +
			"set user to the identity's own role, or create the role again with type service",
	}},
	{"", []string{"does not contain group"}, Diagnosis{
		NotInGroup,
		"the token does not show membership in the role's group; " +
			"if the membership is newer than the token, wait for the next token",
	}},
	{"", []string{"access token not valid for role"}, Diagnosis{
		OtherPrincipal,
		"the role is mapped to another principal than the token's; set user to the role of this identity",
	}},
	{"28", []string{"no pg_hba.conf entry", "no encryption"}, Diagnosis{
		NoTLS,
		"the server requires TLS; remove sslmode=disable",
	}},
	{"28", []string{"no pg_hba.conf entry"}, Diagnosis{
		HostNotAllowed,
		"the server does not accept this user from this address or for this database; " +
			"check the firewall and the name of the database",
	}},
	{"08P01", []string{"password authentication failed"}, pgBouncer},
	{"", []string{"partial pkt in startup phase"}, pgBouncer},
}

// codes are rejections whose message does not name the problem.
var codes = []message{
	{"28P01", nil, Diagnosis{
		NoRole,
		"the role does not exist or is not mapped to this identity; create it with pgaadauth_create_principal, " +
			"or set user to the name of a role that is mapped: names are case-sensitive",
	}},
}

var (
	notAToken = Diagnosis{
		NotAToken,
		"the server does not accept this as a token of its tenant; " +
			"check that the identity belongs to the tenant that the server trusts",
	}
	pgBouncer = Diagnosis{
		PgBouncer,
		"PgBouncer could not handle the token, and its older versions cannot handle long ones; " +
			"connect to port 5432 instead of 6432",
	}
	notMapped = Diagnosis{
		NotMapped,
		"the server requests an ordinary password, so the role is not mapped to Entra; " +
			"create it with pgaadauth_create_principal, or set user to a role that is mapped",
	}
	noAuthentication = Diagnosis{
		NoAuthentication,
		"the server requests no token, and every server of Azure does; " +
			"for a server that accepts every client, set entra_credential=none or require_auth=none,password",
	}
)
