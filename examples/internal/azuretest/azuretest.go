// Package azuretest runs the programs of the examples as on Azure and as on a
// laptop. Only the DSN and the environment differ.
package azuretest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

const (
	tokenLife = 4 * time.Second
	atLeast   = 6 * time.Second // how long a program works at least, so that tokens expire
	pause     = 100 * time.Millisecond
	resource  = "https://ossrdbms-aad.database.windows.net"
)

// Run tests a program twice, each time in an empty database:
//
//   - as on Azure, with a managed identity whose tokens are valid for four seconds.
//     The program's work is repeated until several tokens have expired, and must
//     log in each time.
//   - as on a laptop, with a local server and entra_credential=none. The work is
//     done once.
//
// prepare opens the database and returns a function that does the work.
func Run(t *testing.T, prepare func(t *testing.T, dsn string) (work func() error)) {
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{TokenLife: tokenLife})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("on Azure", func(t *testing.T) { onAzure(t, server, prepare) })
	t.Run("on a laptop", func(t *testing.T) {
		createDatabase(t, server, "laptop", "postgres")
		work := prepare(t, server.AdminDSN()+" dbname=laptop entra_credential=none")
		if err := work(); err != nil {
			t.Error(err)
		}
	})
}

func onAzure(t *testing.T, server *entrapgtest.Server, prepare func(*testing.T, string) func() error) {
	app := server.Tenant.NewUserAssignedIdentity("shop-api")
	if err := server.CreateRole(t.Context(), "", app); err != nil {
		t.Fatal(err)
	}
	createDatabase(t, server, "shop", app.Name)
	for _, variable := range server.Tenant.NewHost(app).Environ() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	dsn := strings.Replace(server.DSN(), "/postgres?", "/shop?", 1) +
		"&entra_credential=managedidentity&entra_client_id=" + app.ClientID

	work := prepare(t, dsn)
	begin := time.Now()
	for time.Since(begin) < atLeast || server.Tenant.RequestsFor(resource) < 3 {
		if time.Since(begin) > time.Minute {
			t.Fatal("a minute has passed without a third token")
		}
		before := len(server.Logins())
		if err := work(); err != nil {
			t.Fatalf("after %s: %v", time.Since(begin).Round(time.Millisecond), err)
		}
		if len(server.Logins()) == before {
			t.Fatal("the work was done without a login")
		}
		time.Sleep(pause)
	}
	for _, login := range server.Logins() {
		if !login.Accepted {
			t.Errorf("a login as %q was rejected: %s (%s)", login.User, login.Message, login.Reason)
		}
	}
}

func createDatabase(t *testing.T, server *entrapgtest.Server, name, owner string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), fmt.Sprintf("create database %q owner %q", name, owner)); err != nil {
		t.Fatal(err)
	}
}
