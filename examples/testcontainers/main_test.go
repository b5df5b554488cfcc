package main

import (
	"cmp"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"

	"github.com/entrapg/entrapg/entrapgtest"
)

// startContainer starts PostgreSQL in a container and returns its superuser's DSN.
func startContainer(t *testing.T) string {
	t.Helper()
	testcontainers.SkipIfProviderIsNotHealthy(t)
	image := cmp.Or(os.Getenv("ENTRAPG_TEST_POSTGRES_IMAGE"), "postgres:18")
	container, err := postgres.Run(t.Context(), image, postgres.WithDatabase("shop"), postgres.BasicWaitStrategies())
	testcontainers.CleanupContainer(t, container)
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := container.ConnectionString(t.Context(), "sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

// entra_credential=none logs in to the container with its password.
func TestTestcontainers_LogsInWithPassword(t *testing.T) {
	db := open(startContainer(t) + "&entra_credential=none")
	defer db.Close()
	user, err := whoAmI(t.Context(), db)
	if err != nil || user != "postgres" {
		t.Errorf("logged in as %q, %v", user, err)
	}
}

// entrapgtest, in front of the container, checks tokens as Azure does.
func TestTestcontainers_LogsInWhileTokensExpire(t *testing.T) {
	server, err := entrapgtest.Start(t.Context(),
		entrapgtest.Config{Upstream: startContainer(t), TokenLife: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	app := server.Tenant.NewUserAssignedIdentity("shop-api")
	if err := server.CreateRole(t.Context(), "", app); err != nil {
		t.Fatal(err)
	}
	for _, variable := range server.Tenant.NewHost(app).Environ() { // as on App Service
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}

	db := open(server.DSN() + "&entra_credential=managedidentity&entra_client_id=" + app.ClientID)
	defer db.Close()
	db.SetMaxIdleConns(0) // so that every query logs in
	for begin := time.Now(); time.Since(begin) < 10*time.Second; {
		if user, err := whoAmI(t.Context(), db); err != nil || user != app.Name {
			t.Fatalf("logged in as %q, %v", user, err)
		}
	}
	if asked := server.Tenant.RequestsFor("https://ossrdbms-aad.database.windows.net"); asked < 3 {
		t.Errorf("%d token requests in ten seconds, with tokens that are valid for four", asked)
	}
}
