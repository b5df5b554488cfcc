package entrapgtest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

const audience = "https://ossrdbms-aad.database.windows.net"

func start(t testing.TB, config entrapgtest.Config) *entrapgtest.Server {
	t.Helper()
	s, err := entrapgtest.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// share returns the server that tests share if they set no faults.
func share(t testing.TB) *entrapgtest.Server {
	t.Helper()
	return must[*entrapgtest.Server](t)(entrapgtest.Shared())
}

// startFront starts a server for one test that uses the shared PostgreSQL.
func startFront(t testing.TB, config entrapgtest.Config) *entrapgtest.Server {
	t.Helper()
	config.Upstream = share(t).AdminDSN()
	return start(t, config)
}

func TestMain(m *testing.M) {
	// With the race detector, a process sleeps for a second before it exits. Tests start several.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	code := m.Run()
	entrapgtest.CloseShared()
	os.Exit(code)
}

// must returns a function that fails the test if there is an error, and returns the value otherwise.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func createRole(t testing.TB, s *entrapgtest.Server, role string, p *entrapgtest.Principal) {
	t.Helper()
	if err := s.CreateRole(t.Context(), role, p); err != nil {
		t.Fatal(err)
	}
}

func token(t testing.TB, p *entrapgtest.Principal, resource string) azcore.AccessToken {
	t.Helper()
	token, err := p.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true after a minute: %s", what)
		}
	}
}

// logIn logs in as pgx does with a password, and closes the connection.
func logIn(t testing.TB, s *entrapgtest.Server, user, password string) error {
	t.Helper()
	conn, err := connect(t, s.DSN(), user, password)
	if err == nil {
		conn.Close(context.Background())
	}
	return err
}

func connect(t testing.TB, dsn, user, password string) (*pgx.Conn, error) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = user, password
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// forge signs a token's claims with another key than the tenant's.
func forge(t testing.TB, genuine string, method jwt.SigningMethod, key any, change func(jwt.MapClaims)) string {
	t.Helper()
	claims := jwt.MapClaims{}
	parsed, _, err := jwt.NewParser().ParseUnverified(genuine, claims)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(claims)
	}
	forged := jwt.NewWithClaims(method, claims)
	forged.Header["kid"] = parsed.Header["kid"]
	signed, err := forged.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestServer_ValidatesTokensAsAzureDoes(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	other := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	deployer := s.Tenant.NewServicePrincipal("deployer")
	alice := s.Tenant.NewUser("alice@contoso.example")
	team := s.Tenant.NewGroup("team")
	member := s.Tenant.NewUser("member@contoso.example", team)
	noOID := s.Tenant.NewUser("ghost@contoso.example")
	noOID.Claims = map[string]any{"oid": nil}
	strangerTenant := s.Tenant.NewUser("stranger@contoso.example")
	strangerTenant.Claims = map[string]any{"tid": other.Tenant.ID}
	for _, p := range []*entrapgtest.Principal{app, alice, team, noOID, strangerTenant} {
		createRole(t, s, "", p)
	}
	createRole(t, s, "odd name; \"quoted\"", alice)
	foreignKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreigner := other.Tenant.NewUser("alice@contoso.example")
	s.SetFaults(entrapgtest.Faults{TokenLife: time.Microsecond})
	expired := token(t, app, audience).Token
	s.SetFaults(entrapgtest.Faults{})
	genuine := token(t, app, audience).Token
	later := func(c jwt.MapClaims) { c["exp"] = time.Now().Add(time.Hour).Unix() }

	const validation = "An error occurred while validating the access token. Please acquire a new token and retry"
	for name, test := range map[string]struct {
		role, password string
		code, message  string // empty: accepted
	}{
		"managed identity":          {"app", genuine, "", ""},
		"user":                      {"alice@contoso.example", token(t, alice, audience).Token, "", ""},
		"role of another name":      {"odd name; \"quoted\"", token(t, alice, audience).Token, "", ""},
		"member of a group":         {"team", token(t, member, audience).Token, "", ""},
		"expired":                   {"app", expired, "28000", "The access token has expired. Acquire a new token and try again."},
		"expired, with exp changed": {"app", forge(t, expired, jwt.SigningMethodRS256, foreignKey, later), "28000", validation},
		"signed with another key":   {"app", forge(t, genuine, jwt.SigningMethodRS256, foreignKey, nil), "28000", validation},
		"not signed": {
			"app", forge(t, genuine, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), "28000", validation,
		},
		"signed with a shared secret": {"app", forge(t, genuine, jwt.SigningMethodHS256, []byte("secret"), nil), "28000", validation},
		"of another tenant":           {"alice@contoso.example", token(t, foreigner, audience).Token, "28000", validation},
		"that names another tenant":   {"stranger@contoso.example", token(t, strangerTenant, audience).Token, "28000", validation},
		"for another service": {
			"app", token(t, app, "https://management.azure.com").Token, "28000",
			`The access token does not have a valid audience claim. Please acquire a new token for the resource "` + audience + `".`,
		},
		"with a slash in the audience": {
			"app", token(t, app, audience+"/").Token, "28000",
			`The access token does not have a valid audience claim. Please acquire a new token for the resource "` + audience + `".`,
		},
		"without oid": {
			"ghost@contoso.example", token(t, noOID, audience).Token, "28000",
			"The access token doesn't have a valid oid claim. Acquire a new token and try again",
		},
		"an ordinary password": {"app", "hunter2", "28000", validation},
		"an empty password":    {"app", "", "28000", validation},
		"a quoted token": {
			"app", `"` + genuine + `"`, "28000",
			"The access token has invalid format. " +
				"Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
		},
		"a truncated token": {
			"app", genuine[:40], "28000",
			"The access token has invalid format. " +
				"Please ensure the token is passed exactly as returned by the authentication endpoint and retry.",
		},
		"a user as a service": {
			"app", token(t, alice, audience).Token, "28000",
			"Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[app]",
		},
		"a service as a user": {
			"alice@contoso.example", genuine, "28000",
			"Azure AD user token for role[alice@contoso.example] is neither an AAD_AUTH_TOKENTYPE_APP_USER " +
				"or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
		},
		"a service as another": {
			"app", token(t, deployer, audience).Token, "28000",
			`Service principal oid mismatch for role "app". The oid in the security label [` + app.ObjectID +
				`] does not match the appid [` + deployer.ClientID + `] or oid [` + deployer.ObjectID + `] in the token.`,
		},
		"a user as another": {
			"alice@contoso.example", token(t, member, audience).Token, "28P01",
			`password authentication failed for user "alice@contoso.example"`,
		},
		"a user outside the group": {
			"team", token(t, alice, audience).Token, "28000",
			"Azure AD access token not valid for role team (does not contain group ID " + team.ObjectID + ")",
		},
		"a role in another case": {"APP", genuine, "28P01", `password authentication failed for user "APP"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := logIn(t, s, test.role, test.password)
			logins := s.Logins()
			last := logins[len(logins)-1]
			if test.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				if !last.Accepted || last.User != test.role || !last.TLS || last.Database != "postgres" {
					t.Errorf("recorded: %+v", last)
				}
				return
			}
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) {
				t.Fatalf("got %v, want a rejection", err)
			}
			if pgErr.Code != test.code || pgErr.Message != test.message {
				t.Errorf("got %s %q, want %s %q", pgErr.Code, pgErr.Message, test.code, test.message)
			}
			if last.Accepted || test.role != "APP" && (last.Code != test.code || last.Reason == "") {
				t.Errorf("recorded: %+v", last)
			}
		})
	}
}

func TestServer_SessionRunsOnPostgreSQL(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	conn, err := connect(t, s.DSN()+"&application_name=shop&search_path=elsewhere", "app", token(t, app, audience).Token)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var user, name, path string
	if err := conn.QueryRow(t.Context(),
		"select session_user, current_setting('application_name'), current_setting('search_path')").Scan(&user,
		&name, &path); err != nil {
		t.Fatal(err)
	}
	if user != "app" || name != "shop" || path != "elsewhere" {
		t.Errorf("session of %q, application %q, search path %q", user, name, path)
	}
	if _, err := conn.Exec(t.Context(), "set session authorization postgres"); err == nil {
		t.Error("the role could become the superuser")
	}
	rows := make([][]any, 10_000)
	for i := range rows {
		rows[i] = []any{i, strings.Repeat("x", 100)}
	}
	if _, err := conn.Exec(t.Context(), "create temp table t (n int, s text)"); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"n", "s"}, pgx.CopyFromRows(rows)); err != nil ||
		n != 10_000 {
		t.Errorf("copied %d rows, error %v", n, err)
	}

	pid, ended := conn.PgConn().PID(), make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "select pg_sleep(600)")
		ended <- err
	}()
	sleeps := fmt.Sprintf("select count(*)::text from pg_stat_activity where pid = %d and wait_event = 'PgSleep'", pid)
	eventually(t, "the query runs", func() bool { return admin(t, s, sleeps) == "1" })
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !hasCode(err, "57014") {
		t.Errorf("a canceled query ended with %v", err)
	}
	if err := logIn(t, s, "app", token(t, app, audience).Token); err != nil {
		t.Error(err)
	}
}

func TestServer_PostgreSQLErrorReachesClient(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	_, err := connect(t, strings.Replace(s.DSN(), "/postgres?", "/nowhere?", 1), "app", token(t, app, audience).Token)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "3D000" {
		t.Errorf("got %v, want that there is no such database", err)
	}
}

func TestServer_UnmappedRoleLogsInWithPassword(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	admin, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	if _, err := admin.Exec(t.Context(), "create role classic login password 'hunter2'"); err != nil {
		t.Fatal(err)
	}
	if err := logIn(t, s, "classic", "hunter2"); err != nil {
		t.Error(err)
	}
	if err := logIn(t, s, "classic", "hunter3"); err == nil {
		t.Error("a wrong password was accepted")
	}
	// Mapping it makes it an Entra role.
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "classic", app)
	if err := logIn(t, s, "classic", "hunter2"); err == nil {
		t.Error("the password still works")
	}
	if err := logIn(t, s, "classic", token(t, app, audience).Token); err != nil {
		t.Error(err)
	}
}

func TestServer_UpstreamCanBeRunningServer(t *testing.T) {
	behind := share(t)
	s := start(t, entrapgtest.Config{Upstream: behind.AdminDSN(), Audience: "https://token.postgres.cosmos.azure.com"})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	if err := logIn(t, s, "app", token(t, app, "https://token.postgres.cosmos.azure.com").Token); err != nil {
		t.Error(err)
	}
	if err := logIn(t, s, "app", token(t, app, audience).Token); err == nil {
		t.Error("a token for another audience was accepted")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(s.CAFile())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was not removed: %v", err)
	}
	if conn, err := pgx.Connect(t.Context(), behind.AdminDSN()); err != nil {
		t.Errorf("closing the front stopped the server behind it: %v", err)
	} else {
		conn.Close(context.Background())
	}
}

func TestServer_UnreachableUpstreamIsErrorAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	setTempDir(t, dir)
	if s, err := entrapgtest.Start(t.Context(),
		entrapgtest.Config{Upstream: "host=127.0.0.1 port=1 user=postgres"}); err == nil {
		s.Close()
		t.Error("it started")
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("not removed: %v", entries)
	}
}

func TestServer_RevokedTokensAreRejectedAndSessionsContinue(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	old := token(t, app, audience).Token
	conn, err := connect(t, s.DSN(), "app", old)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	if err := logIn(t, s, "app", old); err == nil {
		t.Error("a revoked token was accepted")
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the open session: %v", err)
	}
	if err := logIn(t, s, "app", token(t, app, audience).Token); err != nil {
		t.Errorf("a new token: %v", err)
	}
}

func TestPrincipal_TokenOfGuestContainsHomeAccount(t *testing.T) {
	s := share(t)
	for account, test := range map[string]struct{ name, idp string }{
		"bob@fabrikam.example":             {"bob_fabrikam.example#EXT#@contoso.example", "https://sts.windows.net/"},
		"live.com#carol@outlook.example":   {"carol_outlook.example#EXT#@contoso.example", "live.com"},
		"mail#dan@shop.example":            {"dan_shop.example#EXT#@contoso.example", "mail"},
		"google.com#erin@mailbox.example":  {"erin_mailbox.example#EXT#@contoso.example", "google.com"},
		"live.com#O'Neil+x@second.example": {"O'Neil+x_second.example#EXT#@contoso.example", "live.com"},
	} {
		guest := s.Tenant.NewGuest(account)
		createRole(t, s, "", guest)
		secret := token(t, guest, audience).Token
		idp, _ := claim(t, secret, "idp").(string)
		if guest.Name != test.name || !strings.HasPrefix(idp, test.idp) || strings.Contains(idp, s.Tenant.ID) ||
			claim(t, secret, "unique_name") != account || claim(t, secret, "upn") != nil ||
			claim(t, secret, "tid") != s.Tenant.ID {
			t.Errorf("%s: %q with idp %v, unique_name %v, upn %v", account, guest.Name, idp, claim(t, secret, "unique_name"),
				claim(t, secret, "upn"))
		}
		if err := logIn(t, s, guest.Name, secret); err != nil {
			t.Error(err)
		}
		if err := logIn(t, s, account, secret); err == nil || !strings.Contains(err.Error(), "failed SASL auth") {
			t.Errorf("as %s: %v", account, err)
		}
	}
}

func TestTenant_FaultsFailTokenRequests(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	options := policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}}
	s.SetFaults(entrapgtest.Faults{EntraDown: true})
	if _, err := app.GetToken(t.Context(), options); err == nil {
		t.Error("Entra answered though it is down")
	}
	s.SetFaults(entrapgtest.Faults{EntraDelay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := app.GetToken(ctx, options); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow Entra: got %v, want the caller's deadline", err)
	}
	s.SetFaults(entrapgtest.Faults{TokenLife: time.Minute})
	begun := time.Now()
	expires := token(t, app, audience).ExpiresOn // in whole seconds
	if expires.Before(begun.Add(59*time.Second)) || expires.After(time.Now().Add(time.Minute)) {
		t.Errorf("a token of a minute that was requested at %v expires at %v", begun, expires)
	}
	for name, bad := range map[string]policy.TokenRequestOptions{
		"no scope":        {},
		"two scopes":      {Scopes: []string{"a/.default", "b/.default"}},
		"a bare resource": {Scopes: []string{audience}},
	} {
		if _, err := app.GetToken(t.Context(), bad); err == nil {
			t.Errorf("%s: a token was issued", name)
		}
	}
	if _, err := s.Tenant.NewGroup("team").GetToken(t.Context(), options); err == nil {
		t.Error("a group got a token")
	}
	if n := s.Tenant.Requests(); n != 5 {
		t.Errorf("%d requests counted, want 5", n)
	}
}

func TestFront_SurvivesHostileClients(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	sslRequest := []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
	for name, sent := range map[string][]byte{
		"nothing":             {},
		"one byte":            {0},
		"an excessive length": {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"a short length":      {0, 0, 0, 4, 0, 3, 0, 0},
		"no parameters":       {0, 0, 0, 9, 0, 3, 0, 0, 0},
		"unfinished startup":  {0, 0, 0, 20, 0, 3, 0, 0, 'u', 's', 'e', 'r'},
		"protocol 2":          {0, 0, 0, 8, 0, 2, 0, 0},
		"repeated GSS requests": {
			0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30, 0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30, 0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30, 0, 0, 0,
			8, 0x04, 0xd2, 0x16, 0x30,
		},
		"a cancel request with an unknown key": {0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 1},
		"no handshake after a TLS request":     append(append([]byte{}, sslRequest...), "hello, world, this is no TLS"...),
		"half a TLS handshake":                 {0x16, 3, 1, 0, 200, 1, 0, 0, 196},
		"HTTP":                                 []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write(sent)
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			answer, err := io.ReadAll(conn)
			if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the server does not close the connection, after answering %q", answer)
			}
			if strings.Contains(string(answer), "R\x00\x00\x00\x08\x00\x00\x00\x00") {
				t.Errorf("the client is accepted: %q", answer)
			}
		})
	}
	if err := logIn(t, s, "app", token(t, app, audience).Token); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestFront_ClientWithoutTLSIsRejectedWithAzureMessage(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	_, err := connect(t, "sslmode=disable "+hostAndPort(t, s), "app", token(t, app, audience).Token)
	var pgErr *pgconn.PgError
	want := `no pg_hba.conf entry for host "127.0.0.1", user "app", database "app", no encryption`
	if !errors.As(err, &pgErr) || pgErr.Code != "28000" || pgErr.Message != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFront_AcceptsDirectTLS(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	conn, err := connect(t, s.DSN()+"&sslnegotiation=direct", "app", token(t, app, audience).Token)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}

func TestFront_NewerProtocolIsNegotiatedDown(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	conn, err := connect(t, s.DSN()+"&max_protocol_version=3.2", "app", token(t, app, audience).Token)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}

func TestFront_DataBeforeTLSEndsConnection(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	raw, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	startup := append(binary.BigEndian.AppendUint32(nil, 18), 0, 3, 0, 0, 'u', 's', 'e', 'r', 0, 'x', 0, 0)
	raw.Write(append([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}, startup...))
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("the handshake succeeded")
	}
	if n := len(s.Logins()); n != 0 {
		t.Errorf("the startup message that was sent before TLS was recorded as a login")
	}
}

func TestServer_CloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	conn, err := connect(t, s.DSN(), "app", token(t, app, audience).Token)
	if err != nil {
		t.Fatal(err)
	}
	halfway, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer halfway.Close()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a session continued after Close")
	}
	if _, err := os.Stat(filepath.Dir(s.CAFile())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was not removed: %v", err)
	}
	if _, err := pgx.Connect(t.Context(), s.AdminDSN()); err == nil {
		t.Error("PostgreSQL is still running")
	}
	noneLeft(t, before)
}

// noneLeft waits until the number of goroutines is at most that of before.
func noneLeft(t testing.TB, before int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are left over", n-before)
	}
}

func TestServer_CanceledStartLeavesNothing(t *testing.T) {
	dir, err := os.MkdirTemp("", "start")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil { // PostgreSQL may run as another user
		t.Fatal(err)
	}
	setTempDir(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if s, err := entrapgtest.Start(ctx, entrapgtest.Config{}); err == nil {
		s.Close()
		t.Error("it started")
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("not removed: %v", entries)
	}
}

func TestServer_MissingPostgresIsExplained(t *testing.T) {
	t.Setenv("ENTRAPG_POSTGRES_BIN", t.TempDir())
	_, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err == nil || !strings.Contains(err.Error(), "ENTRAPG_POSTGRES_BIN") {
		t.Errorf("got %v, want an error that names the variable", err)
	}
}

func TestServer_PostgreSQLIsPrivateToProcess(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	admin := must[*pgx.ConnConfig](t)(pgx.ParseConfig(s.AdminDSN()))
	dir, password := admin.Host, admin.Password
	if runtime.GOOS != "windows" {
		for _, path := range []string{dir, filepath.Join(dir, "data"), filepath.Join(dir, ".s.PGSQL.5432")} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v, error %v", path, info.Mode(), err)
			}
		}
	}
	// The password is in none of its files, one of which contains the command line.
	if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // the server removes files as it runs
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(password)) {
			t.Errorf("%s contains the password", path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	admin.Password = "guess"
	if _, err := pgx.ConnectConfig(t.Context(), admin); err == nil {
		t.Error("a wrong password was accepted on the socket")
	}
	conn, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for query, want := range map[string]string{
		"show listen_addresses":        "",
		"show unix_socket_directories": dir,
		"select coalesce(string_agg(distinct auth_method, ' '), '') from pg_hba_file_rules": "scram-sha-256",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, want %q, error %v", query, got, want, err)
		}
	}
	_, identity, _ := strings.Cut(s.Tenant.NewHost().Environ()[0], "http://")
	for _, addr := range []string{
		s.Addr(), strings.TrimPrefix(s.Tenant.URL(), "https://"),
		strings.TrimSuffix(identity, "/msi/token"),
	} {
		if host, err := netip.ParseAddrPort(addr); err != nil || !host.Addr().IsLoopback() {
			t.Errorf("%s is open to the network, error %v", addr, err)
		}
	}
}

func TestServer_CreateRoleRejectsUnmappableRole(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	alice := s.Tenant.NewUser("alice@contoso.example")
	for name, err := range map[string]error{
		"a name that PostgreSQL would truncate": s.CreateRole(t.Context(), strings.Repeat("x", 64), alice),
		"a name with NUL":                       s.CreateRole(t.Context(), "a\x00b", alice),
		"the superuser":                         s.CreateRole(t.Context(), "postgres", alice),
		"nil":                                   s.CreateRole(t.Context(), "x", nil),
		"a principal without a tenant":          s.CreateRole(t.Context(), "x", &entrapgtest.Principal{}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func hostAndPort(t testing.TB, s *entrapgtest.Server) string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("host=%s port=%s", host, port)
}

func setTempDir(t *testing.T, dir string) {
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, dir)
	}
}

func TestServer_DSNEscapesAnyDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("", "a&b%41+c =d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // once the server has been closed
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	setTempDir(t, dir)
	s := start(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	if err := logIn(t, s, "app", token(t, app, audience).Token); err != nil {
		t.Error(err)
	}
}
