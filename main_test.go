package entrapg_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// server is shared by the tests that do not change it. It starts on first use, so that tests and
// fuzzing that need no server run without PostgreSQL.
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
		trustVariable()
		serveLogins()
		return
	}
	// The developer's environment must not affect the tests.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
	code := m.Run()
	closeServer()
	os.Exit(code)
}

// closedPort is an address at which nothing listens: the system assigns no port below 1024 to another
// process by chance.
const closedPort = "127.0.0.1:1"

// azureName is a host name to which the rules for Azure apply.
const azureName = "shop.postgres.database.azure.com"

// start starts a server for one test, with its own tenant, faults and record of logins. It uses the
// PostgreSQL of the shared server, so each role must be for one test only.
func start(t testing.TB, config entrapgtest.Config) *entrapgtest.Server {
	t.Helper()
	config.Upstream = server().AdminDSN()
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

// app creates a managed identity and its role on a server.
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

// open opens a pool and closes it when the test ends.
func open(t testing.TB, dsn string, opts ...entrapg.Option) (*sql.DB, *entrapg.Connector) {
	t.Helper()
	c := entrapg.NewConnector(dsn, opts...)
	db := sql.OpenDB(c)
	t.Cleanup(func() { db.Close() })
	return db, c
}

// sessionUser returns the user that PostgreSQL authenticated.
func sessionUser(t testing.TB, db *sql.DB) string {
	t.Helper()
	var user string
	if err := db.QueryRowContext(t.Context(), "select session_user").Scan(&user); err != nil {
		t.Fatal(err)
	}
	return user
}

// exampleServer returns the DSN of the server and a managed identity that has a role on it.
func exampleServer(name string) (dsn string, credential *entrapgtest.Principal) {
	credential = server().Tenant.NewUserAssignedIdentity(name)
	if err := server().CreateRole(context.Background(), "", credential); err != nil {
		panic(err)
	}
	return server().DSN(), credential
}

// exampleLogger returns a logger of the level debug that writes to standard output, without what differs
// on each run. The channel receives after each record.
func exampleLogger() (_ *slog.Logger, logged <-chan struct{}) {
	written := make(writes, 8)
	return slog.New(slog.NewTextHandler(io.MultiWriter(os.Stdout, written), &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "expires" {
				return slog.Attr{}
			}
			return a
		},
	})), written
}

// writes is a writer that announces each Write.
type writes chan struct{}

func (w writes) Write(b []byte) (int, error) {
	w <- struct{}{}
	return len(b), nil
}

// developerDSN returns the DSN, with a password, of a server without Entra.
func developerDSN() string { return server().AdminDSN() + " entra_credential=none" }

// quote quotes a value for a keyword/value DSN.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// connect opens and closes a connection.
func connect(t *testing.T, c *entrapg.Connector) error {
	t.Helper()
	conn, err := c.Connect(t.Context())
	if err == nil {
		conn.Close()
	}
	return err
}

// mustConnect fails the test if connect fails.
func mustConnect(t *testing.T, c *entrapg.Connector) {
	t.Helper()
	if err := connect(t, c); err != nil {
		t.Fatalf("Connect: %v", err)
	}
}

// databaseScope is the scope of Azure Database for PostgreSQL in the public cloud.
const databaseScope = "https://ossrdbms-aad.database.windows.net/.default"

func tokenOptions(scope string) policy.TokenRequestOptions {
	return policy.TokenRequestOptions{Scopes: []string{scope}}
}

// openByName opens a pool by driver name and DSN.
func openByName(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("entrapg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// logIn opens and closes a connection of a pool.
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
