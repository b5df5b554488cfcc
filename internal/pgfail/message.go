package pgfail

import (
	"cmp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/claims"
)

// A message describes error responses and their diagnosis.
type message struct {
	code      string   // the SQLSTATE begins with it
	fragments []string // the text contains them all, in any case
	fatal     bool     // the response ends the session
	diagnosis Diagnosis
}

func (m message) matches(e *pgconn.PgError, text string) bool {
	for _, fragment := range m.fragments {
		if !strings.Contains(text, strings.ToLower(fragment)) {
			return false
		}
	}
	return strings.HasPrefix(e.Code, m.code) && (!m.fatal || isFatal(e))
}

// isFatal reports whether an error response ends the session, and is thus the
// response to a login rather than to a statement.
func isFatal(e *pgconn.PgError) bool { return cmp.Or(e.SeverityUnlocalized, e.Severity) == "FATAL" }

// lookUp returns the diagnosis of the first message in table that matches.
func lookUp(table []message, e *pgconn.PgError) Diagnosis {
	text := strings.ToLower(e.Message + "\n" + e.Detail + "\n" + e.Hint)
	for _, m := range table {
		if m.matches(e, text) {
			return m.diagnosis
		}
	}
	return Diagnosis{}
}

// messages are those that identify the problem. Microsoft's messages exist in two
// wordings ("does not" and "doesn't", "retry" and "try again"), so the fragments
// contain only words that both have in common. Some are documented at
// https://learn.microsoft.com/azure/postgresql/security/security-entra-configure,
// the others come from public reports.
var messages = []message{
	{"", []string{"access token", "expired"}, false, Diagnosis{
		TokenExpired,
		"the token expired before the server checked it; check this machine's clock, " +
			"and that the credential does not return expired tokens",
	}},
	{"", []string{"valid audience claim"}, false, Diagnosis{
		WrongAudience,
		"the token is for another service or cloud; omit entra_scope, or set it to the scope of the server's cloud",
	}},
	{"", []string{"access token", "invalid format"}, false, Diagnosis{
		MalformedToken,
		"the token was changed or truncated; pass it exactly as the credential returned it",
	}},
	{"", []string{"error occurred while validating the access token"}, false, notAToken},
	{"28", []string{"OAuth bearer authentication failed"}, false, notAToken}, // PostgreSQL 18
	{"", []string{"valid oid claim"}, false, Diagnosis{
		NoObjectID,
		"the token has no object ID; log in as a user, a service principal or a managed identity",
	}},
	{"", []string{"cannot generate", "AAD_AUTH_TOKENTYPE_APP_USER"}, false, Diagnosis{
		UserTokenForService,
		"a user's token was used for the role of a service principal; log in as that service principal, " +
			"set user to your own role, or create the role again with type user",
	}},
	{"", []string{"is neither", "AAD_AUTH_TOKENTYPE_APP_USER"}, false, Diagnosis{
		ServiceTokenForUser,
		"the token of an application or managed identity was used for a user's role; " +
			"set user to the identity's own role, or create the role again with type service",
	}},
	{"", []string{"does not contain group"}, false, Diagnosis{
		NotInGroup,
		"the token does not show membership in the role's group; " +
			"if the membership is newer than the token, wait for the next token",
	}},
	{"", []string{"access token not valid for role"}, false, Diagnosis{
		OtherPrincipal,
		"the role is mapped to another principal than the token's; set user to the role of this identity",
	}},
	{"", []string{"oid mismatch for role"}, false, Diagnosis{
		OtherObjectID,
		"the role is mapped to another object ID than the token's, for example because the identity was deleted and " +
			"created again; map it again with pgaadauth_update_principal_with_oid, which keeps the role's privileges",
	}},
	{"28", []string{"role", "not permitted to log in"}, false, Diagnosis{
		NoLogin,
		"the role cannot log in, because it has the attribute NOLOGIN; run ALTER ROLE … LOGIN, or set user to another role",
	}},
	{"53300", []string{"too many connections for role"}, true, Diagnosis{
		RoleFull,
		"the role has as many connections as its limit allows; raise the limit with ALTER ROLE … CONNECTION LIMIT, " +
			"or lower SetMaxOpenConns or pool_max_conns",
	}},
	{"53300", []string{"too many connections for database"}, true, Diagnosis{
		DatabaseFull,
		"the database has as many connections as its limit allows; raise the limit with ALTER DATABASE … CONNECTION LIMIT, " +
			"or lower SetMaxOpenConns or pool_max_conns",
	}},
	{"55000", []string{"database", "not currently accepting connections"}, true, Diagnosis{
		DatabaseClosed,
		"the login works, but the database does not allow connections; run ALTER DATABASE … ALLOW_CONNECTIONS true, " +
			"or set the name of another one",
	}},
	{"28", []string{"no pg_hba.conf entry", "no encryption"}, false, Diagnosis{
		NoTLS,
		"the server requires TLS; remove sslmode=disable",
	}},
	{"28", []string{"no pg_hba.conf entry"}, false, Diagnosis{
		HostNotAllowed,
		"the server does not accept this user from this address or for this database; " +
			"check the firewall and the name of the database",
	}},
	{"08P01", []string{"password authentication failed"}, false, pgBouncer},
	{"", []string{"partial pkt in startup phase"}, false, pgBouncer},
	{"08P01", []string{"unsupported startup parameter"}, false, unknownParameter}, // PgBouncer
	{"08P01", []string{"no more connections allowed"}, false, serverFull},         // PgBouncer
	{"08P01", []string{"no such database"}, false, noDatabase},                    // PgBouncer
}

// codes are SQLSTATEs whose messages add nothing or are localized.
var codes = []message{
	{"28P01", nil, false, Diagnosis{
		NoRole,
		"the role does not exist or is not mapped to this identity; create it with pgaadauth_create_principal, " +
			"or set user to the name of a role that is mapped: names are case-sensitive",
	}},
	{"53300", nil, true, serverFull},
	{"3D000", nil, true, noDatabase},
	{"42501", []string{"permission denied for database"}, true, Diagnosis{
		NoConnectPrivilege,
		"the login works, but the role may not connect to this database; grant it the privilege CONNECT",
	}},
	{"57P03", nil, true, Diagnosis{NotReady, "the server is starting or stopping; try again in a minute"}},
	{"42704", nil, true, unknownParameter},
	{"42601", nil, true, invalidParameter},
	{"22023", nil, true, invalidParameter},
	{"55P02", nil, true, invalidParameter},
	{"42501", []string{"permission denied to set parameter"}, true, invalidParameter},
	{"42P05", nil, false, transactionPooling},
	{"26000", nil, false, transactionPooling},
}

var (
	notAToken = Diagnosis{
		NotAToken,
		"the server cannot validate the token: it was revoked, or it is of a tenant that the server does not trust; " +
			"log in with a new token, and check the identity's tenant",
	}
	pgBouncer = Diagnosis{
		PgBouncer,
		"PgBouncer could not handle the token, and its older versions cannot handle long ones; " +
			"connect to port 5432 instead of 6432",
	}
	pgBouncerBroke = Diagnosis{
		PgBouncer,
		"the connection broke when the token was sent, as with older versions of PgBouncer, which cannot handle long ones; " +
			"connect to port 5432 instead of 6432",
	}
	serverFull = Diagnosis{
		ServerFull,
		"the server has no free connection; lower SetMaxOpenConns or pool_max_conns, or raise max_connections",
	}
	noSuitableHost = Diagnosis{
		NoSuitableHost,
		"the login works, but no host satisfies target_session_attrs; add a host that does, " +
			"or set target_session_attrs=any",
	}
	noDatabase = Diagnosis{
		NoDatabase,
		"the login works, but the database does not exist; create it, or set the name of another one",
	}
	unknownParameter = Diagnosis{
		UnknownParameter,
		"the server or PgBouncer does not know a parameter of the DSN, a service file or a PG* variable; remove it: " +
			"pgx sends every key that it does not know to the server",
	}
	invalidParameter = Diagnosis{
		InvalidParameter,
		"the server rejects the value of a parameter of the DSN, a service file or a PG* variable such as PGOPTIONS; " +
			"correct or remove it",
	}
	transactionPooling = Diagnosis{
		TransactionPooling,
		"a pooler such as PgBouncer in transaction mode does not keep prepared statements; " +
			"set default_query_exec_mode=exec in the connection string, or connect to port 5432",
	}
	serverSuffix = Diagnosis{
		ServerSuffix,
		"the user ends in the name of a server, as Azure Database for PostgreSQL Single Server required; " +
			"remove the last @ and what follows it",
	}
	guestName = Diagnosis{
		GuestName,
		claims.GuestRole + "; set user to that name, with each # written as %23 in a URL",
	}
	unnamed = Diagnosis{
		UnnamedIdentity,
		"the user is the name or ID of the application, because the token for Azure Resource Manager that names " +
			"the identity could not be requested; set user to the name of the role",
	}
	wrongPassword = Diagnosis{
		WrongPassword,
		"entra_credential=none logs in with the password of the DSN, PGPASSWORD or a password file; " +
			"check the password and the user",
	}
	notMapped = Diagnosis{
		NotMapped,
		"the server requests an ordinary password, so the role is not mapped to Entra; " +
			"create it with pgaadauth_create_principal, or set user to a role that is mapped",
	}
	noAuthentication = Diagnosis{
		NoAuthentication,
		"the server requests no authentication, but every Azure server does; " +
			"for a server that accepts every client, set entra_credential=none or require_auth=none,password",
	}
)
