package entrapg_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestErrors_WrongIdentityIsLoginErrorWithHint(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	owner := app(t, s)
	mallory := s.Tenant.NewUserAssignedIdentity("mallory")
	db, _ := open(t, s.DSN()+"&user="+owner.Name, entrapg.WithCredential(mallory))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	var server *pgconn.PgError
	if !errors.As(err, &login) || !errors.As(err, &server) {
		t.Fatalf("got %v, want a LoginError that wraps a PgError", err)
	}
	if login.User != owner.Name || login.Hint == "" || server.Code != "28000" {
		t.Errorf("got %#v", login)
	}
	if n := len(s.Logins()); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
}

func TestErrors_UnmappedRoleHasHint(t *testing.T) {
	p := server().Tenant.NewUser("nobody@contoso.example")
	db, _ := open(t, server().DSN(), entrapg.WithCredential(p))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	if !errors.As(err, &login) || !strings.Contains(login.Hint, "pgaadauth_create_principal") {
		t.Errorf("got %v, want a LoginError with a hint to create the role", err)
	}
}

func TestErrors_UnreachableServerIsConnectErrorWithoutToken(t *testing.T) {
	db, _ := open(t, "postgres://"+closedPort+"/postgres?user=app", entrapg.WithCredential(app(t, server())))
	err := db.PingContext(t.Context())
	var connect *pgconn.ConnectError
	var login *entrapg.LoginError
	if !errors.As(err, &connect) || errors.As(err, &login) {
		t.Fatalf("got %v, want a ConnectError and no LoginError", err)
	}
	if connect.Config.Password != "" {
		t.Error("the error contains the token")
	}
}

func TestErrors_AzureMessagesHaveHints(t *testing.T) {
	for _, test := range []struct{ code, message, hint string }{
		{"28000", "The access token has expired. Acquire a new token and try again.", "clock"},
		{"28000", "THE ACCESS TOKEN HAS EXPIRED. Please acquire a new token and retry.", "clock"},
		{
			"28000",
			"The access token does not have a valid audience claim. " +
				`Please acquire a new token for the resource "https://ossrdbms-aad.database.windows.net".`,
			"entra_scope",
		},
		{
			"28000",
			"The access token doesn't have a valid audience claim. " +
				`Acquire a new token for the resource "https://token.postgres.cosmos.azure.com" and try again`,
			"the scope of the server's cloud",
		},
		{
			"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource "%s".`,
			"entra_scope",
		},
		{
			"28000",
			"The access token has invalid format. " +
				"Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
			"exactly",
		},
		{"28000", "An error occurred while validating the access token. Please acquire a new token and retry", "tenant"},
		{"28000", "The access token doesn't have a valid oid claim. Acquire a new token and try again", "object ID"},
		{"28000", "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[app]", "user's token"},
		{"28000", `Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role "app"`, "user's token"},
		{
			"28000",
			"Azure AD user token for role[app] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
			"user's role",
		},
		{
			"28000",
			`Microsoft Entra user token for role "app" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.`,
			"user's role",
		},
		{"28000", "Azure AD access token not valid for role app (does not contain group ID 7d)", "membership"},
		{"28P01", `password authentication failed for user "app"`, "case-sensitive"},
		{"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", no encryption`, "TLS"},
		{"28000", `no pg_hba.conf entry for host "203.0.113.7", user "app", database "db", SSL encryption`, "firewall"},
		{"08P01", `password authentication failed`, "5432"},
		{"08P01", `client sent partial pkt in startup phase`, "5432"},
		{
			"28000",
			`Service principal oid mismatch for role "app". ` +
				"The oid in the security label [7d] does not match the appid [8e] or oid [9f] in the token.",
			"pgaadauth_update_principal_with_oid",
		},
		{"53300", `sorry, too many clients already`, "SetMaxOpenConns"},
		{"42704", `unrecognized configuration parameter "keepalives"`, "remove it"},
		{"55000", `cannot execute in this state`, ""},
	} {
		s := &pipeServer{reject: func(string) *pgproto3.ErrorResponse {
			return &pgproto3.ErrorResponse{Severity: "FATAL", Code: test.code, Message: test.message}
		}}
		err := connect(t, entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(&numbered{life: 1e12})))
		var login *entrapg.LoginError
		var pgErr *pgconn.PgError
		if !errors.As(err, &login) || !errors.As(err, &pgErr) {
			t.Errorf("%s: got %v, want a LoginError that wraps a PgError", test.message, err)
			continue
		}
		if pgErr.Code != test.code || pgErr.Message != test.message || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: the server's message is missing: %v", test.message, err)
		}
		if !strings.Contains(login.Hint, test.hint) || !strings.Contains(err.Error(), login.Hint) ||
			test.hint == "" && login.Hint != "" {
			t.Errorf("%s: hint %q, want %q in it", test.message, login.Hint, test.hint)
		}
		if login.User != "app" {
			t.Errorf("%s: user %q", test.message, login.User)
		}
	}
}

func TestErrors_TokenErrorIsOneLineWithHint(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := s.Tenant.NewServicePrincipal("one line")
	credential, err := azidentity.NewClientSecretCredential(s.Tenant.ID, p.ClientID, "wrong", &azidentity.ClientSecretCredentialOptions{
		ClientOptions: s.Tenant.ClientOptions(), DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = connect(t, entrapg.NewConnector(s.DSN(), entrapg.WithCredential(credential)))
	var token *entrapg.TokenError
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &token) || !errors.As(err, &failed) || !strings.Contains(token.Err.Error(), "RESPONSE 401") {
		t.Fatalf("got %v, want a TokenError that wraps azidentity's error with the response", err)
	}
	text := err.Error()
	if strings.Contains(text, "\n") || !strings.Contains(text, " HTTP 401 Unauthorized: AADSTS7000215: ") ||
		!strings.HasSuffix(text, ": "+token.Hint) {
		t.Errorf("got %s", text)
	}
}
