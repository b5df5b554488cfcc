package pgfail_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// rejections are real messages and their diagnoses. hint is a part of the diagnosis's Hint.
var rejections = []struct {
	code, message string
	kind          pgfail.Kind
	hint          string
}{
	{"28000", "The access token has expired. Acquire a new token and try again.", pgfail.TokenExpired, "clock"},
	{"28000", "THE ACCESS TOKEN HAS EXPIRED. Please acquire a new token and retry.", pgfail.TokenExpired, "clock"},
	{
		"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource ` +
			`"https://ossrdbms-aad.database.windows.net".`, pgfail.WrongAudience, "entra_scope",
	},
	{
		"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource "%s".`,
		pgfail.WrongAudience, "entra_scope",
	},
	{
		"28000", `The access token doesn't have a valid audience claim. Acquire a new token for the resource ` +
			`"https://token.postgres.cosmos.azure.com" and try again`,
		pgfail.WrongAudience, "the scope of the server's cloud",
	},
	{
		"28000", "The access token has invalid format. Please ensure the token is passed exactly as returned by the " +
			"authentication endpoint and retry.", pgfail.MalformedToken, "exactly",
	},
	{
		"28000", "An error occurred while validating the access token. Please acquire a new token and retry",
		pgfail.NotAToken, "tenant",
	},
	{"28000", `OAuth bearer authentication failed for user "app"`, pgfail.NotAToken, "tenant"},
	{
		"28000", "The access token doesn't have a valid oid claim. Acquire a new token and try again",
		pgfail.NoObjectID, "object ID",
	},
	{
		"28000", "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[app]",
		pgfail.UserTokenForService, "user's token",
	},
	{
		"28000", `Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role "app"`,
		pgfail.UserTokenForService, "user's token",
	},
	{
		"28000", "Azure AD user token for role[app] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an " +
			"AAD_AUTH_TOKENTYPE_APP_OBO token.", pgfail.ServiceTokenForUser, "user's role",
	},
	{
		"28000", `Microsoft Entra user token for role "app" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an ` +
			"AAD_AUTH_TOKENTYPE_APP_OBO token.", pgfail.ServiceTokenForUser, "user's role",
	},
	{
		"28000", "Azure AD access token not valid for role app (does not contain group ID 7d)",
		pgfail.NotInGroup, "membership",
	},
	{"28000", "Azure AD access token not valid for role app", pgfail.OtherPrincipal, "set user"},
	{
		"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", no encryption`,
		pgfail.NoTLS, "TLS",
	},
	{
		"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", SSL encryption`,
		pgfail.HostNotAllowed, "firewall",
	},
	{"08P01", "password authentication failed", pgfail.PgBouncer, "5432"},
	{"08P01", "client sent partial pkt in startup phase", pgfail.PgBouncer, "5432"},
	{"28P01", `password authentication failed for user "app"`, pgfail.NoRole, "case-sensitive"},
	{"28P01", `password authentication failed for user "app"`, pgfail.NoRole, "pgaadauth_create_principal"},
	{"28000", `role "app" does not exist`, pgfail.Unknown, ""},
	{
		"28000", `Service principal oid mismatch for role "app". The oid in the security label [7d] does not match the ` +
			"appid [8e] or oid [9f] in the token.", pgfail.OtherObjectID, "pgaadauth_update_principal_with_oid",
	},
	{"28000", "Service Principal oid mismatch for role[app].", pgfail.OtherObjectID, "pgaadauth_update_principal_with_oid"},
	{"53300", "sorry, too many clients already", pgfail.ServerFull, "SetMaxOpenConns"},
	{"53300", `too many connections for role "app"`, pgfail.RoleFull, "CONNECTION LIMIT"},
	{"53300", `too many connections for database "db"`, pgfail.DatabaseFull, "ALTER DATABASE"},
	{"55000", `database "db" is not currently accepting connections`, pgfail.DatabaseClosed, "ALLOW_CONNECTIONS"},
	{"28000", `role "app" is not permitted to log in`, pgfail.NoLogin, "LOGIN"},
	{"53300", "remaining connection slots are reserved for azure superuser", pgfail.ServerFull, "max_connections"},
	{"08P01", "no more connections allowed (max_client_conn)", pgfail.ServerFull, "SetMaxOpenConns"},
	{"3D000", `database "db" does not exist`, pgfail.NoDatabase, "database"},
	{"08P01", "no such database: db", pgfail.NoDatabase, "database"},
	{"42501", `permission denied for database "db"`, pgfail.NoConnectPrivilege, "CONNECT"},
	{"57P03", "the database system is starting up", pgfail.NotReady, "try again"},
	{"42704", `unrecognized configuration parameter "keepalives"`, pgfail.UnknownParameter, "remove it"},
	{"42601", "-c foo requires a value", pgfail.InvalidParameter, "correct or remove"},
	{"22023", `ungültiger Wert für Parameter »TimeZone«: »x«`, pgfail.InvalidParameter, "correct or remove"},
	{"42704", `unbekannter Konfigurationsparameter »keepalives«`, pgfail.UnknownParameter, "remove it"},
	{"08P01", "unsupported startup parameter: search_path", pgfail.UnknownParameter, "remove it"},
	{"08P01", "unsupported startup parameter in options: search_path", pgfail.UnknownParameter, "remove it"},
	{"42P05", `prepared statement "stmtcache_1" already exists`, pgfail.TransactionPooling, "default_query_exec_mode=exec"},
	{"26000", `prepared statement "stmtcache_1" does not exist`, pgfail.TransactionPooling, "default_query_exec_mode=exec"},
	{"55000", "cannot execute in this state", pgfail.Unknown, ""},
}

func TestClassify_RecognizesMessagesOfServers(t *testing.T) {
	for _, test := range rejections {
		response := reject(test.code, test.message)
		for name, err := range map[string]error{
			"cleartext":   logIn(t, "password,oauth", host{askPassword, response}),
			"OAUTHBEARER": logIn(t, "password,oauth", host{askBearer, response}),
			"unasked":     logIn(t, "", host{response}),
			"SCRAM":       logIn(t, "", host{askSCRAM, response}),
			"wrapped":     fmt.Errorf("sql: %w", &pgconn.PgError{Severity: "FATAL", Code: test.code, Message: test.message}),
			"detail":      &pgconn.PgError{Severity: "FATAL", Code: test.code, Message: "login failed", Detail: test.message},
			"hint":        &pgconn.PgError{Severity: "FATAL", Code: test.code, Message: "login failed", Hint: test.message},
		} {
			got := pgfail.Classify(err, pgfail.Login{})
			if got.Kind != test.kind || !strings.Contains(got.Hint, test.hint) || (test.hint == "") != (got.Hint == "") {
				t.Errorf("%s: %v\ngot %+v, want kind %d and a hint with %q", name, err, got, test.kind, test.hint)
			}
			if pgfail.WrongMethod(err) || pgfail.IsBearerRejection(err) {
				t.Errorf("%s: %v: counts as an error without a response", name, err)
			}
			if responses := pgfail.ServerErrors(err); len(responses) != 1 || responses[0].Code != test.code {
				t.Errorf("%s: %v: responses %v", name, err, responses)
			} else if pgfail.IsRejection(responses[0]) != strings.HasPrefix(test.code, "28") {
				t.Errorf("%s: %v: rejection %t", name, err, pgfail.IsRejection(responses[0]))
			}
		}
	}
}

func TestClassify_HintDoesNotQuoteServer(t *testing.T) {
	for _, message := range []string{
		`The access token does not have a valid audience claim. ` +
			`Please acquire a new token for the resource "https://mallory.example".`,
		`Azure AD access token not valid for role mallory (does not contain group ID mallory)`,
		`no pg_hba.conf entry for host "mallory", user "mallory", database "mallory", no encryption`,
		`Service principal oid mismatch for role "mallory". The oid in the security label [mallory] does not match`,
	} {
		got := pgfail.Classify(&pgconn.PgError{Severity: "FATAL", Code: "28000", Message: message}, pgfail.Login{})
		if got.Hint == "" || strings.Contains(got.Hint, "mallory") {
			t.Errorf("%s: hint %q", message, got.Hint)
		}
	}
}

func TestClassify_RecognizesMethodsWithoutToken(t *testing.T) {
	const require = "password,oauth"
	for name, test := range map[string]struct {
		requireAuth         string
		host                host
		kind                pgfail.Kind
		hint                string
		bearer, wrongMethod bool
	}{
		"MD5":           {require, host{askMD5}, pgfail.NotMapped, "mapped", false, true},
		"GSS":           {require, host{askGSS}, pgfail.NotMapped, "pgaadauth_create_principal", false, true},
		"SCRAM":         {require, host{askSCRAM}, pgfail.NotMapped, "mapped", false, true},
		"invalid SCRAM": {"", host{askSCRAM, bearerStatus("")}, pgfail.NotMapped, "mapped", false, true},
		"nothing":       {require, host{askNothing}, pgfail.NoAuthentication, "but every Azure server does", false, true},
		"OAUTHBEARER":   {require, host{askBearer, bearerStatus("invalid_token")}, pgfail.NotAToken, "tenant", true, false},
		"misleading OAUTHBEARER": {
			"", host{askBearer, bearerStatus("failed: server requested")}, pgfail.NotAToken, "tenant", true, false,
		},
		"OAUTHBEARER without status": {"", host{askBearer, askPassword}, pgfail.Unknown, "", false, false},
		"OAUTHBEARER, cut":           {"", host{askBearer}, pgfail.Unknown, "", false, false},
		"SCRAM, cut":                 {"", host{askSCRAM}, pgfail.Unknown, "", false, false},
		"cleartext password, cut":    {"", host{askPassword}, pgfail.Unknown, "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := logIn(t, test.requireAuth, test.host)
			got := pgfail.Classify(err, pgfail.Login{})
			if got.Kind != test.kind || !strings.Contains(got.Hint, test.hint) || (test.hint == "") != (got.Hint == "") {
				t.Errorf("%v\ngot %+v, want kind %d and a hint with %q", err, got, test.kind, test.hint)
			}
			if got := pgfail.IsBearerRejection(err); got != test.bearer {
				t.Errorf("%v\nIsBearerRejection: got %t", err, got)
			}
			if got := pgfail.WrongMethod(err); got != test.wrongMethod {
				t.Errorf("%v\nWrongMethod: got %t", err, got)
			}
			if got := pgfail.ServerErrors(err); len(got) > 0 {
				t.Errorf("%v\nServerErrors: got %v", err, got)
			}
		})
	}
}

func TestClassify_PrefersMostSpecificAnswerOfSeveralHosts(t *testing.T) {
	const require = "password,oauth"
	expired := host{askPassword, reject("28000", "The access token has expired. Acquire a new token and try again.")}
	odd := host{reject("55000", "cannot execute in this state")}
	plaintext := host{reject("28000", `no pg_hba.conf entry for host "h", user "app", database "db", no encryption`)}
	// After 28P01, pgx tries no further host.
	noRole := host{askPassword, reject("28P01", `password authentication failed for user "app"`)}
	notMapped, bearer := host{askSCRAM}, host{askBearer, bearerStatus("invalid_token")}

	for _, test := range []struct {
		name      string
		hosts     []host
		kind      pgfail.Kind
		responses int
	}{
		{"unknown, then known", []host{odd, expired}, pgfail.TokenExpired, 2},
		{"two known", []host{expired, plaintext}, pgfail.TokenExpired, 2},
		{"method, then message", []host{notMapped, expired}, pgfail.TokenExpired, 1},
		{"method, then code", []host{notMapped, noRole}, pgfail.NotMapped, 1},
		{"method, then bearer", []host{notMapped, bearer}, pgfail.NotAToken, 0},
		{"bearer, then code", []host{bearer, noRole}, pgfail.NotAToken, 1},
		{"unknown, then code", []host{odd, noRole}, pgfail.NoRole, 2},
		{"unknown, then method", []host{odd, notMapped}, pgfail.NotMapped, 1},
		{"unknown twice", []host{odd, odd}, pgfail.Unknown, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := fmt.Errorf("connect: %w", errors.Join(logIn(t, require, test.hosts...)))
			if got := pgfail.Classify(err, pgfail.Login{}); got.Kind != test.kind {
				t.Errorf("%v\ngot %+v, want kind %d", err, got, test.kind)
			}
			if got := pgfail.ServerErrors(err); len(got) != test.responses {
				t.Errorf("%v\nServerErrors: got %v, want %d", err, got, test.responses)
			}
		})
	}
}

func TestClassify_RefinesDiagnosisByLogin(t *testing.T) {
	const (
		host  = "shop.postgres.database.azure.com"
		scope = "https://token.postgres.cosmos.azure.com/.default"
	)
	noRole := reject("28P01", `password authentication failed for user "app"`)
	notInGroup := reject("28000", "Azure AD access token not valid for role app (does not contain group ID 7d)")
	audience := reject("28000", "The access token does not have a valid audience claim.")
	for name, test := range map[string]struct {
		login    pgfail.Login
		response *pgproto3.ErrorResponse
		kind     pgfail.Kind
		hint     string
	}{
		"role":               {pgfail.Login{User: "app"}, noRole, pgfail.NoRole, "pgaadauth_create_principal"},
		"user@server":        {pgfail.Login{User: "app@shop"}, noRole, pgfail.ServerSuffix, "remove the last @"},
		"user@domain@server": {pgfail.Login{User: "alice@contoso.com@shop"}, noRole, pgfail.ServerSuffix, "remove the last @"},
		"user@host": {
			pgfail.Login{User: "app@" + host, Hosts: []string{"h", strings.ToUpper(host)}},
			noRole, pgfail.ServerSuffix,
			"remove the last @",
		},
		"user@domain":        {pgfail.Login{User: "alice@contoso.com", Hosts: []string{host}}, noRole, pgfail.NoRole, "case-sensitive"},
		"guest":              {pgfail.Login{User: "bob@fabrikam.com", Guest: true}, noRole, pgfail.GuestName, claims.GuestRole},
		"guest of Microsoft": {pgfail.Login{User: "live.com#bob@outlook.com", Guest: true}, noRole, pgfail.GuestName, claims.GuestRole},
		"guest by name": {
			pgfail.Login{User: "bob_fabrikam.com#EXT#@contoso.com", Guest: true}, noRole, pgfail.NoRole, "case-sensitive",
		},
		"guest, as a group":        {pgfail.Login{User: "app", Guest: true}, notInGroup, pgfail.NotInGroup, "membership"},
		"failed look-up":           {pgfail.Login{User: "7d", Unnamed: true}, noRole, pgfail.UnnamedIdentity, "Azure Resource Manager"},
		"failed look-up, in group": {pgfail.Login{User: "7d", Unnamed: true}, notInGroup, pgfail.NotInGroup, "membership"},
		"scope":                    {pgfail.Login{Scope: scope}, audience, pgfail.WrongAudience, scope},
		"no scope":                 {pgfail.Login{}, audience, pgfail.WrongAudience, "the scope of the server's cloud"},
		"password":                 {pgfail.Login{User: "app@shop", Password: true}, noRole, pgfail.WrongPassword, "check the password"},
		"password, audience":       {pgfail.Login{Password: true}, audience, pgfail.WrongPassword, "check the password"},
		"password, PgBouncer": {
			pgfail.Login{Password: true}, reject("08P01", "client sent partial pkt in startup phase"), pgfail.Unknown, "",
		},
		"password, full": {pgfail.Login{Password: true}, reject("53300", "x"), pgfail.ServerFull, "max_connections"},
		"password, firewall": {
			pgfail.Login{Password: true},
			reject("28000", `no pg_hba.conf entry for host "h"`), pgfail.HostNotAllowed,
			"firewall",
		},
		"password, no role": {
			pgfail.Login{Password: true},
			reject("28000", `role "app" does not exist`), pgfail.WrongPassword,
			"check the password",
		},
	} {
		got := pgfail.Classify(logIn(t, "", []pgproto3.BackendMessage{askPassword, test.response}), test.login)
		if got.Kind != test.kind || !strings.Contains(got.Hint, test.hint) || (test.hint == "") != (got.Hint == "") {
			t.Errorf("%s: got %+v, want kind %d and a hint with %q", name, got, test.kind, test.hint)
		}
	}
	scram := logIn(t, "password,oauth", []pgproto3.BackendMessage{askSCRAM})
	for user, kind := range map[string]pgfail.Kind{
		"app": pgfail.NotMapped, "app@shop": pgfail.ServerSuffix, "bob@fabrikam.com": pgfail.GuestName,
	} {
		if got := pgfail.Classify(scram, pgfail.Login{User: user, Guest: strings.Contains(user, ".")}); got.Kind != kind {
			t.Errorf("%s: got %+v, want kind %d", user, got, kind)
		}
	}
	if got := pgfail.Classify(scram, pgfail.Login{Password: true}); got.Kind != pgfail.WrongPassword {
		t.Errorf("password: got %+v", got)
	}
}

// PgBouncer can also reject a managed identity's token, which is shorter than a user's.
func TestClassify_PgBouncerHintHelpsEveryIdentity(t *testing.T) {
	for _, message := range []string{"password authentication failed", "client sent partial pkt in startup phase"} {
		got := pgfail.Classify(&pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: message}, pgfail.Login{})
		if !strings.Contains(got.Hint, "5432") || strings.Contains(got.Hint, "managed identity") {
			t.Errorf("%s: hint %q", message, got.Hint)
		}
	}
}

// A statement can fail with the codes of logins.
func TestClassify_DistinguishesStatementsFromLogins(t *testing.T) {
	for _, e := range []*pgconn.PgError{
		{Severity: "ERROR", Code: "42501", Message: "permission denied for table orders"},
		{Severity: "ERROR", Code: "42704", Message: `type "money2" does not exist`},
		{Severity: "ERROR", Code: "3D000", Message: `database "shop" does not exist`},
		{Severity: "ОШИБКА", SeverityUnlocalized: "ERROR", Code: "42501", Message: "x"},
	} {
		if got := pgfail.Classify(e, pgfail.Login{}); got != (pgfail.Diagnosis{}) {
			t.Errorf("%v: got %+v", e, got)
		}
	}
	lost := &pgconn.PgError{Severity: "ERROR", Code: "26000", Message: `prepared statement "stmtcache_1" does not exist`}
	if got := pgfail.Classify(lost, pgfail.Login{}); got.Kind != pgfail.TransactionPooling {
		t.Errorf("%v: got %+v", lost, got)
	}
	localized := &pgconn.PgError{Severity: "ВАЖНО", SeverityUnlocalized: "FATAL", Code: "53300", Message: "x"}
	if got := pgfail.Classify(localized, pgfail.Login{}); got.Kind != pgfail.ServerFull {
		t.Errorf("%v: got %+v", localized, got)
	}
}

func TestClassify_ReturnsUnknownForOtherErrors(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("dial tcp: connection refused"), context.DeadlineExceeded, errors.Join(nil, context.Canceled),
	} {
		if got := pgfail.Classify(err, pgfail.Login{}); got != (pgfail.Diagnosis{}) {
			t.Errorf("%v: got %+v", err, got)
		}
		if pgfail.ServerErrors(err) != nil || pgfail.WrongMethod(err) || pgfail.IsBearerRejection(err) {
			t.Errorf("%v: recognized as a server's answer", err)
		}
	}
}

func TestClassify_RecognizesHostsThatTargetSessionAttrsExcludes(t *testing.T) {
	for err, want := range map[error]string{
		pgconn.ErrReadOnlyConnection: "read-only", pgconn.ErrReadWriteConnection: "read-write",
		pgconn.ErrPrimaryConnection: "a primary", pgconn.ErrStandbyConnection: "a standby",
	} {
		err = fmt.Errorf("ValidateConnect failed: %w", err)
		for _, login := range []pgfail.Login{{}, {Password: true}} {
			got := pgfail.Classify(errors.Join(errors.New("connection refused"), err), login)
			if got.Kind != pgfail.NoSuitableHost || !strings.Contains(got.Hint, "target_session_attrs=any") ||
				pgfail.Session(err) != want {
				t.Errorf("%v: got %+v and %q", err, got, pgfail.Session(err))
			}
		}
	}
	rejected := &pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: "x"}
	if got := pgfail.Classify(errors.Join(pgconn.ErrPrimaryConnection, rejected),
		pgfail.Login{}); got.Kind != pgfail.NoRole {
		t.Errorf("got %+v", got)
	}
	if got := pgfail.Session(rejected); got != "" {
		t.Errorf("got %q", got)
	}
}
