package main

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/lib/pq"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestLibPQ_OpensConnectionsWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db, err := open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		if _, ok := db.Driver().(*pq.Driver); !ok {
			t.Errorf("the driver is a %T", db.Driver())
		}
		return func() error {
			_, err := whoAmI(t.Context(), db)
			return err
		}
	})
}

func TestLibPQ_SendsNoTokenToUntrustedServer(t *testing.T) {
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	app := server.Tenant.NewUserAssignedIdentity("shop-api")
	for _, variable := range server.Tenant.NewHost(app).Environ() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	for _, mode := range []string{"", "require", "verify-full"} {
		dsn := "postgres://" + server.Addr() + "/postgres?" + url.Values{
			"entra_credential": {"managedidentity"}, "entra_client_id": {app.ClientID},
		}.Encode()
		if mode != "" {
			dsn += "&sslmode=" + mode
		}
		db, err := open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var untrusted x509.UnknownAuthorityError
		if err := db.PingContext(t.Context()); !errors.As(err, &untrusted) {
			t.Errorf("sslmode %q: %v", mode, err)
		}
		db.Close()
	}
	if logins := server.Logins(); len(logins) > 0 {
		t.Errorf("the server got %d logins", len(logins))
	}
}

func TestLibPQ_ReportsUnsafeSettings(t *testing.T) {
	for _, dsn := range []string{
		"host=db.example.com sslmode=disable", "host=db.example.com sslmode=prefer",
		"host=db.example.com password=hunter2",
	} {
		db, err := open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var invalid *entrapg.ConfigError
		if err := db.PingContext(t.Context()); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", dsn, err)
		}
		db.Close()
	}
}
