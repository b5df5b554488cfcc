package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/entrapgtest"
)

func TestExec_WarnsOfPasswordInFiles(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "backup", true)
	path := filepath.Join(t.TempDir(), "pg_basebackup")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := runAs(t, env, "exec", "--", path, "-RP")
	if want := "entrapg: warning: pg_basebackup writes "; r.code != 0 || r.stdout != "ran\n" || !strings.HasPrefix(r.stderr, want) {
		t.Errorf("%+v, want %s", r, want)
	}
}

func TestExec_ExplainsServerThatRequestsBearer(t *testing.T) {
	t.Parallel()
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{OAuth: true, Upstream: azureServer(t).AdminDSN()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, env := identityWith(t, s, "bearer", true)
	psql := installed(t, "psql")
	const want = "OAUTHBEARER, which libpq cannot send"
	if r := runAs(t, env, "exec", "--", psql, "-XAtc", "select 1"); r.code == 0 || !strings.Contains(r.stderr, want) {
		t.Errorf("%+v, want %s", r, want)
	}
	if r := runAs(t, env, "exec", "--", "echo", "hello"); r.code != 0 || r.stdout != "hello\n" || r.stderr != "" {
		t.Errorf("another program: %+v", r)
	}

	password := azureServer(t)
	_, env = identityWith(t, password, "no-bearer", true)
	if r := runAs(t, env, "exec", "--", psql, "-XAtc", "select 1"); r.code != 0 || r.stderr != "" {
		t.Errorf("a server that requests a password: %+v", r)
	}
	for _, l := range password.Logins() {
		if l.User == "no-bearer" && !l.Accepted {
			t.Errorf("the server rejected a login: %+v", l)
		}
	}
}
