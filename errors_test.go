package entrapg_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

func TestWhatAzureSaysComesWithAHint(t *testing.T) {
	for _, test := range []struct{ code, message, hint string }{
		{"28000", "The access token has expired. Acquire a new token and try again.", "clock"},
		{"28000", "THE ACCESS TOKEN HAS EXPIRED. Please acquire a new token and retry.", "clock"},
		{"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource "https://ossrdbms-aad.database.windows.net".`, "entra_scope"},
		{"28000", `The access token doesn't have a valid audience claim. Acquire a new token for the resource "https://token.postgres.cosmos.azure.com" and try again`, "entra_scope=https://token.postgres.cosmos.azure.com/.default"},
		{"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource "%s".`, "entra_scope"},
		{"28000", "The access token has invalid format. Please ensure the token is passed exactly as returned by the authentication endpoint and retry.", "exactly"},
		{"28000", "An error occurred while validating the access token. Please acquire a new token and retry", "tenant"},
		{"28000", "The access token doesn't have a valid oid claim. Acquire a new token and try again", "names no object"},
		{"28000", "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[app]", "person's token"},
		{"28000", `Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role "app"`, "person's token"},
		{"28000", "Azure AD user token for role[app] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.", "person's role"},
		{"28000", `Microsoft Entra user token for role "app" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.`, "person's role"},
		{"28000", "Azure AD access token not valid for role app (does not contain group ID 7d)", "membership"},
		{"28P01", `password authentication failed for user "app"`, "case-sensitive"},
		{"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", no encryption`, "TLS"},
		{"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", SSL encryption`, "firewall"},
		{"08P01", `password authentication failed`, "5432"},
		{"08P01", `client sent partial pkt in startup phase`, "5432"},
		{"53300", `sorry, too many clients already`, ""},
	} {
		s := &pipeServer{refuse: func(string) *pgproto3.ErrorResponse {
			return &pgproto3.ErrorResponse{Severity: "FATAL", Code: test.code, Message: test.message}
		}}
		err := connect(t, entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(&numbered{life: 1e12})))
		var login *entrapg.LoginError
		var said *pgconn.PgError
		if !errors.As(err, &login) || !errors.As(err, &said) {
			t.Errorf("%s: got %v, want a LoginError with the server's own", test.message, err)
			continue
		}
		if said.Code != test.code || said.Message != test.message || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: the server's own words are lost: %v", test.message, err)
		}
		if !strings.Contains(login.Hint, test.hint) || !strings.Contains(err.Error(), login.Hint) || test.hint == "" && login.Hint != "" {
			t.Errorf("%s: hint %q, want %q in it", test.message, login.Hint, test.hint)
		}
		if login.User != "app" {
			t.Errorf("%s: user %q", test.message, login.User)
		}
	}
}
