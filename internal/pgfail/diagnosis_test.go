package pgfail_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/pgfail"
)

// rejections are real messages with their diagnosis. hint is a part of it.
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
		pgfail.CosmosAudience, "entra_scope=https://token.postgres.cosmos.azure.com/.default",
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
	{"53300", "sorry, too many clients already", pgfail.Unknown, ""},
}

func TestClassify_KnowsTheMessagesOfServers(t *testing.T) {
	for _, test := range rejections {
		response := reject(test.code, test.message)
		for name, err := range map[string]error{
			"cleartext":   logIn(t, "password,oauth", host{askPassword, response}),
			"OAUTHBEARER": logIn(t, "password,oauth", host{askBearer, response}),
			"unasked":     logIn(t, "", host{response}),
			"SCRAM":       logIn(t, "", host{askSCRAM, response}),
			"wrapped":     fmt.Errorf("sql: %w", &pgconn.PgError{Code: test.code, Message: test.message}),
			"detail":      &pgconn.PgError{Code: test.code, Message: "login failed", Detail: test.message},
			"hint":        &pgconn.PgError{Code: test.code, Message: "login failed", Hint: test.message},
		} {
			got := pgfail.Classify(err)
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

func TestClassify_TakesNothingFromTheServer(t *testing.T) {
	for _, message := range []string{
		`The access token does not have a valid audience claim. ` +
			`Please acquire a new token for the resource "https://mallory.example".`,
		`Azure AD access token not valid for role mallory (does not contain group ID mallory)`,
		`no pg_hba.conf entry for host "mallory", user "mallory", database "mallory", no encryption`,
	} {
		got := pgfail.Classify(&pgconn.PgError{Severity: "FATAL", Code: "28000", Message: message})
		if got.Hint == "" || strings.Contains(got.Hint, "mallory") {
			t.Errorf("%s: hint %q", message, got.Hint)
		}
	}
}

func TestClassify_KnowsMethodsWithoutAToken(t *testing.T) {
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
		"nothing":       {require, host{askNothing}, pgfail.NoAuthentication, "entra_credential=none", false, true},
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
			got := pgfail.Classify(err)
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

func TestClassify_PrefersTheMostSpecificOfSeveralHosts(t *testing.T) {
	const require = "password,oauth"
	expired := host{askPassword, reject("28000", "The access token has expired. Acquire a new token and try again.")}
	full := host{reject("53300", "sorry, too many clients already")}
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
		{"unknown, then known", []host{full, expired}, pgfail.TokenExpired, 2},
		{"two known", []host{expired, plaintext}, pgfail.TokenExpired, 2},
		{"method, then message", []host{notMapped, expired}, pgfail.TokenExpired, 1},
		{"method, then code", []host{notMapped, noRole}, pgfail.NotMapped, 1},
		{"method, then bearer", []host{notMapped, bearer}, pgfail.NotAToken, 0},
		{"bearer, then code", []host{bearer, noRole}, pgfail.NotAToken, 1},
		{"unknown, then code", []host{full, noRole}, pgfail.NoRole, 2},
		{"unknown, then method", []host{full, notMapped}, pgfail.NotMapped, 1},
		{"unknown twice", []host{full, full}, pgfail.Unknown, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := fmt.Errorf("connect: %w", errors.Join(logIn(t, require, test.hosts...)))
			if got := pgfail.Classify(err); got.Kind != test.kind {
				t.Errorf("%v\ngot %+v, want kind %d", err, got, test.kind)
			}
			if got := pgfail.ServerErrors(err); len(got) != test.responses {
				t.Errorf("%v\nServerErrors: got %v, want %d", err, got, test.responses)
			}
		})
	}
}

func TestClassify_KnowsNothingOfOtherErrors(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("dial tcp: connection refused"), context.DeadlineExceeded, errors.Join(nil, context.Canceled),
	} {
		if got := pgfail.Classify(err); got != (pgfail.Diagnosis{}) {
			t.Errorf("%v: got %+v", err, got)
		}
		if pgfail.ServerErrors(err) != nil || pgfail.WrongMethod(err) || pgfail.IsBearerRejection(err) {
			t.Errorf("%v: counts as something", err)
		}
	}
}
