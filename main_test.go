package entrapg_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// server is shared by the tests that leave it as it is. It starts with the
// first of them: tests and fuzzing that need none can do without PostgreSQL.
var server = sync.OnceValue(func() *entrapgtest.Server {
	s, err := entrapgtest.Start(context.Background(), entrapgtest.Config{Hostnames: []string{azureName}})
	if err != nil {
		panic(err)
	}
	closeServer = func() { s.Close() }
	return s
})

var closeServer = func() {}

func TestMain(m *testing.M) {
	tool := os.Getenv(asTool)
	switch {
	case tool != "":
		if err := runTool(tool, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case os.Getenv(asProgram) != "":
		serveLogins()
		return
	}
	// What the developer's machine is set to must not decide how tests end.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
	code := m.Run()
	closeServer()
	os.Exit(code)
}

// azureName is a server's name that the rules for Azure apply to.
const azureName = "shop.postgres.database.azure.com"

// start starts a server of the test's own.
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

// app adds a managed identity with a role to a server.
func app(t testing.TB, s *entrapgtest.Server) *entrapgtest.Principal {
	t.Helper()
	p := s.Tenant.NewUserAssignedIdentity("app-" + t.Name())
	p.Name = p.Name[:min(len(p.Name), 63)]
	p.ResourceID = "/subscriptions/1/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + p.Name
	createRole(t, s, "", p)
	return p
}

func createRole(t testing.TB, s *entrapgtest.Server, role string, p *entrapgtest.Principal) {
	t.Helper()
	if err := s.CreateRole(t.Context(), role, p); err != nil {
		t.Fatal(err)
	}
}

// open opens a pool that the test's end closes.
func open(t testing.TB, dsn string, opts ...entrapg.Option) (*sql.DB, *entrapg.Connector) {
	t.Helper()
	c := entrapg.NewConnector(dsn, opts...)
	db := sql.OpenDB(c)
	t.Cleanup(func() { db.Close() })
	return db, c
}

// sessionUser asks the real PostgreSQL who is logged in.
func sessionUser(t testing.TB, db *sql.DB) string {
	t.Helper()
	var user string
	if err := db.QueryRowContext(t.Context(), "select session_user").Scan(&user); err != nil {
		t.Fatal(err)
	}
	return user
}

// exampleServer returns the DSN of the server and a managed identity that has a role there.
func exampleServer(name string) (dsn string, credential *entrapgtest.Principal) {
	credential = server().Tenant.NewUserAssignedIdentity(name)
	if err := server().CreateRole(context.Background(), "", credential); err != nil {
		panic(err)
	}
	return server().DSN(), credential
}

// developerDSN is that of a server without Entra, with its password.
func developerDSN() string { return server().AdminDSN() + " entra_credential=none" }

func (opaque) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// quote writes a value for a DSN of keywords.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// connect opens a connection and closes it again.
func connect(t *testing.T, c *entrapg.Connector) error {
	t.Helper()
	conn, err := c.Connect(t.Context())
	if err == nil {
		conn.Close()
	}
	return err
}

// mustConnect fails the test where connect does.
func mustConnect(t *testing.T, c *entrapg.Connector) {
	t.Helper()
	if err := connect(t, c); err != nil {
		t.Fatalf("Connect: %v", err)
	}
}

// databaseScope is that of tokens for Azure Database for PostgreSQL in the public cloud.
const databaseScope = "https://ossrdbms-aad.database.windows.net/.default"

func tokenOptions(scope string) policy.TokenRequestOptions {
	return policy.TokenRequestOptions{Scopes: []string{scope}}
}

// openByName opens a pool as tools do that take a driver's name and a DSN.
func openByName(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("entrapg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// logIn opens a connection of a pool, and closes it again.
func logIn(t *testing.T, db *sql.DB) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

func newPool(t *testing.T, config *pgxpool.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func poolConfig(t *testing.T, dsn string, opts ...entrapg.Option) *pgxpool.Config {
	t.Helper()
	config, err := entrapg.PoolConfig(dsn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return config
}
