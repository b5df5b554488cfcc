package main

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

// requirePgDump skips a test if pg_dump is missing. In CI, the test fails, unless
// pg_dump is missing from the server that ENTRAPG_POSTGRES_BIN names: another
// one may be too old for that server.
func requirePgDump(t *testing.T) {
	t.Helper()
	if dir := os.Getenv("ENTRAPG_POSTGRES_BIN"); dir != "" {
		if _, err := exec.LookPath(filepath.Join(dir, "pg_dump")); err != nil {
			t.Skip(err)
		}
		t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	}
	_, err := pgDump()
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("in CI, pg_dump must be installed: %v", err)
	case err != nil:
		t.Skip(err)
	}
}

// useRoots sets PGSSLROOTCERT to the sslrootcert of dsn, if that is a URL.
func useRoots(t *testing.T, dsn string) {
	t.Helper()
	if u, err := url.Parse(dsn); err == nil && u.Scheme == "postgres" {
		t.Setenv("PGSSLROOTCERT", u.Query().Get("sslrootcert"))
	}
}

func TestPgDump_BacksUpWhileTokensExpire(t *testing.T) {
	requirePgDump(t)
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		useRoots(t, dsn)
		connector := entrapg.NewConnector(dsn)
		t.Cleanup(func() { connector.Close() })
		return func() error {
			dir := t.TempDir()
			if err := backUp(t.Context(), dsn, connector, dir); err != nil {
				return err
			}
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil {
				return err
			}
			if len(files) != 1 || filepath.Ext(files[0]) != ".sql" {
				return fmt.Errorf("the directory contains %q", files)
			}
			dump, err := os.ReadFile(files[0])
			if err == nil && !strings.Contains(string(dump), "PostgreSQL database dump complete") {
				err = fmt.Errorf("the dump is not complete: %s", dump)
			}
			return err
		}
	})
}

func TestPgDump_LeavesNoFileIfItFails(t *testing.T) {
	requirePgDump(t)
	dir := t.TempDir()
	dsn := "postgres://app:secret@127.0.0.1:1/shop?sslmode=disable&entra_credential=none"
	connector := entrapg.NewConnector(dsn)
	defer connector.Close()
	if err := backUp(t.Context(), dsn, connector, dir); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the error does not contain pg_dump's message: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) > 0 {
		t.Errorf("the directory contains %q, %v", files, err)
	}
}

// startAsApp starts a server and sets the environment of a program that runs as
// a managed identity.
func startAsApp(t *testing.T) (server *entrapgtest.Server, app *entrapgtest.Principal, dsn string) {
	t.Helper()
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	app = server.Tenant.NewUserAssignedIdentity("shop-api")
	for _, variable := range server.Tenant.NewHost(app).Environ() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	return server, app, server.DSN() + "&entra_credential=managedidentity&entra_client_id=" + app.ClientID
}

func TestPgDump_SendsNoTokenToUntrustedServer(t *testing.T) {
	requirePgDump(t)
	server, _, dsn := startAsApp(t)
	// a different authority
	stranger := httptest.NewTLSServer(nil)
	defer stranger.Close()
	roots := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(roots,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSSLROOTCERT", roots)
	connector := entrapg.NewConnector(dsn)
	defer connector.Close()
	var out strings.Builder
	if err := dump(t.Context(), dsn, connector, &out); err == nil ||
		!strings.Contains(err.Error(), "certificate verify failed") {
		t.Errorf("dumped %q, %v", out.String(), err)
	}
	if logins := server.Logins(); len(logins) > 0 {
		t.Errorf("the server got %d logins", len(logins))
	}
}

// A program that prints its environment replaces pg_dump.
func TestPgDump_EnvironmentContainsTokenAndNoOtherSecret(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell script")
	}
	_, app, dsn := startAsApp(t)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "pg_dump"),
		[]byte("#!/bin/sh\nenv\necho \"arguments $*\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	useRoots(t, dsn)
	for name, value := range map[string]string{
		"PGSSLMODE": "require", "PGHOSTADDR": "192.0.2.1",
		"PGPASSFILE": "/passfile", "PGREQUIRESSL": "0", "APP_SECRET": "hunter2",
	} {
		t.Setenv(name, value)
	}
	connector := entrapg.NewConnector(dsn)
	defer connector.Close()
	_, token, err := connector.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := dump(t.Context(), dsn, connector, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range []string{
		"PGUSER=" + app.Name, "PGPASSWORD=" + token, "PGSSLMODE=verify-full",
		"PGDATABASE=postgres", "PGHOST=127.0.0.1", "arguments --no-password",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the child's environment does not contain %q", want)
		}
	}
	for _, secret := range []string{os.Getenv("IDENTITY_HEADER"), "hunter2", "PGHOSTADDR", "PGPASSFILE", "PGREQUIRESSL"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the child's environment contains %q", secret)
		}
	}
	if strings.Contains(strings.Join(os.Environ(), "\n"), token) {
		t.Error("the program has the token in its own environment")
	}
}

func TestPgDump_VerifiesServerExceptLocallyWithPassword(t *testing.T) {
	for dsn, want := range map[string]string{
		"host=db.example.com":                                             "PGSSLMODE=verify-full",
		"host=db.example.com sslmode=require":                             "PGSSLMODE=verify-full",
		"host=localhost sslmode=disable":                                  "PGSSLMODE=verify-full",
		"host=db.example.com entra_credential=none sslmode=require":       "PGSSLMODE=verify-full",
		"host=localhost entra_credential=none sslmode=disable password=x": "PGSSLMODE=disable",
	} {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if got := environ(config, "app", "x"); !slices.Contains(got, want) {
			t.Errorf("%s: %q", dsn, got)
		}
	}
}
