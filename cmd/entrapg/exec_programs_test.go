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
	for command, want := range map[string]bool{
		"pg_basebackup -R":                          true,
		"/usr/bin/pg_basebackup -D dir -PR":         true,
		"pg_basebackup -vRXs -D dir":                true,
		"pg_basebackup -XR -D dir":                  false, // the value of -X
		"pg_basebackup -D -R":                       false, // the value of -D
		"pg_basebackup -X stream -D dir -R":         true,
		"pg_basebackup -Xstream -Ddir -R":           true,
		"pg_basebackup -i manifest -R":              true,
		"pg_basebackup --write-recovery-conf":       true,
		"pg_basebackup --pgdata=dir --write-rec":    true,
		"pg_basebackup --waldir=dir -D dir":         false,
		"pg_basebackup --wal-method=none -D dir":    false,
		"pg_basebackup -D dir -- -R":                false,
		"pg_basebackup -D dir --slot -R":            true,
		"pg_basebackup -D dir":                      false,
		"PG_BASEBACKUP.EXE -R":                      true, // Windows
		"pg_rewind -cR -D dir --source-server host": true,
		"pg_rewind -D R":                            false,
		"pg_createsubscriber -D dir":                true,
		"pg_dump -R":                                false, // obsolete there
		"psql -R x":                                 false,
	} {
		if warning := writesPassword(strings.Fields(command)); (warning != "") != want {
			t.Errorf("%s: %q", command, warning)
		}
	}

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
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{OAuth: true})
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
