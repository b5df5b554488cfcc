package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

func TestExecProxy_CommandOutlivesItsToken(t *testing.T) {
	t.Parallel()
	s := shortTokens(t)
	_, env := identityWith(t, s, "exec-proxy", true)
	psql := installed(t, "psql")
	// Settings for the server must not reach the proxy.
	env = append(env, "PGSSLMODE=verify-full", "PGHOSTADDR=127.0.0.1", "PGTARGETSESSIONATTRS=primary", "PGPASSWORD=stale",
		"PGREQUIREAUTH=password", "PGREQUIREPEER=nobody", "PGGSSENCMODE=require")
	query := psql + ` -XAtc "select session_user || ' ' || current_setting('application_name') || ' ' || current_setting('work_mem')"`
	dir := t.TempDir()
	begun, expired := filepath.Join(dir, "begun"), filepath.Join(dir, "expired")
	ends := startAs(t, env, "exec", "--proxy", s.DSN()+"&application_name=nightly&work_mem=77kB", "--", "sh", "-c",
		`touch "$0"; until [ -e "$1" ]; do sleep 0.1; done; `+query, begun, expired)
	await(t, func() bool { _, err := os.Stat(begun); return err == nil }, func() string { return "the command has not begun" })
	longTokens(s)
	time.Sleep(shortLife)
	if err := os.WriteFile(expired, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, requests := ends(), s.Tenant.RequestsFor(publicResource)
	if r.code != command.Done || r.stdout != "exec-proxy nightly 77kB\n" || requests < 2 {
		t.Errorf("%d tokens were requested: %+v", requests, r)
	}
}

func TestExecProxy_DatabaseURLIsThatOfProxy(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-proxy-url", true)
	psql := installed(t, "psql")
	for name, args := range map[string][]string{
		"in DATABASE_URL": {"exec", "--proxy", "--", "sh", "-c", psql + ` -XAtc 'select session_user' "$DATABASE_URL"`},
		"in the argument": {"exec", "--proxy", s.DSN(), "--", "sh", "-c", psql + ` -XAtc 'select session_user' "$DATABASE_URL"`},
	} {
		if r := runAs(t, env, args...); r.code != 0 || r.stdout != "exec-proxy-url\n" || r.stderr != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	r := runAs(t, env, "exec", "--proxy", "--", psql, "-XAtc", "select 1", s.DSN("connect_timeout=20"))
	if !strings.Contains(r.stderr, "names the host 127.0.0.1, so the command connects to it and not through the proxy") {
		t.Errorf("a host in an argument: %+v", r)
	}
}

func TestExecProxy_HidesTokenAndSocketIsPrivate(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Unix sockets are not supported on Windows")
	}
	_, env := identityWith(t, azureServer(t), "exec-proxy-env", true)
	cmd, out, dir := program(t, "exec", "--proxy", "--", "sh", "-c", `env; stat -c '%a' "$PGHOST" "$PGHOST"/.s.PGSQL.*; exit 7`)
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v, want exit code 7", err)
	}
	text := out.String()
	if strings.Contains(text, "eyJ") || strings.Contains(text, "\nPGPASSWORD=") || !strings.HasSuffix(text, "\n700\n600\n") ||
		!strings.Contains(text, "\nPGUSER=exec-proxy-env\n") || !strings.Contains(text, "\nPGDATABASE=postgres\n") {
		t.Errorf("got\n%s", text)
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestExecProxy_ForwardsSignals(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	_, env := identityWith(t, azureServer(t), "exec-proxy-signal", true)
	ready := filepath.Join(t.TempDir(), "ready")
	cmd, out, dir := program(t, "exec", "--proxy", "--", "sh",
		"-c", `trap 'echo got it; exit 9' TERM; touch "$0"; while :; do sleep 0.1; done`, ready)
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { _, err := os.Stat(ready); return err == nil }, out.String)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 || out.String() != "got it\n" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestExecProxy_ReportsFailuresBeforeCommandRuns(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-proxy-fails", false)
	stranger := append(env, "AZURE_CLIENT_ID=00000000-0000-0000-0000-000000000000")
	for name, test := range map[string]struct {
		env  []string
		args []string
		code int
		want string
	}{
		"no token":        {stranger, []string{"--", "echo", "ran"}, command.Failed, "no token from"},
		"invalid DSN":     {env, []string{"host=h sslmode=prefer", "--", "echo", "ran"}, command.Failed, "sslmode"},
		"no such command": {env, []string{"--", "no-such-command"}, 127, `"no-such-command" is not in PATH`},
		"database that is a connection string": {
			env,
			[]string{"host=localhost dbname='host=evil.example'", "--", "echo", "ran"},
			command.Failed,
			"dbname: looks like a connection string",
		},
		"user that is a connection string": {
			env,
			[]string{"host=localhost user=postgres://evil.example", "--", "echo", "ran"},
			command.Failed,
			"user: looks like a connection string",
		},
	} {
		r := runAs(t, test.env, append([]string{"exec", "--proxy"}, test.args...)...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) || r.stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestExecProxy_DumpWithSeveralJobs(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-proxy-dump", true)
	createDatabase(t, s, "exec_proxy_dump")
	dump, dir := installed(t, "pg_dump"), t.TempDir()
	if r := runAs(t, env, "exec", "--proxy", s.DSN("dbname=exec_proxy_dump"), "--", dump, "--jobs", "4", "--format", "directory",
		"--file", filepath.Join(dir, "dump")); r.code != command.Done {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, "dump", "toc.dat")); err != nil {
		t.Error(err)
	}
}

func TestExecProxy_AcceptsKeysOfLibpq(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-proxy-keys", true)
	psql := installed(t, "psql")
	rejected := []string{"sslcrl", "sslcrldir", "requirepeer"}
	dsn := s.DSN()
	for _, k := range keysOfLibpq(t) {
		if !slices.Contains(append(rejected, "sslpassword"), k.key) { // pgx requires sslkey beside sslpassword
			dsn += "&" + k.key + "=" + inURL(k.value)
		}
	}
	r := runAs(t, env, "exec", "--proxy", dsn, "--", psql,
		"-XAtc", "select current_setting('application_name'), current_setting('geqo_effort')")
	if r.code != 0 || r.stdout != "shop|3\n" || strings.Contains(r.stderr, "hidden") {
		t.Errorf("%+v", r)
	}
	for _, k := range keysOfLibpq(t) {
		warned := strings.Contains(r.stderr, "entrapg: warning: "+k.key+" (DSN) is ignored: the proxy does not support it\n")
		if warned != k.ignoredByProxy {
			t.Errorf("%s: warning %t in\n%s", k.key, warned, r.stderr)
		}
	}
	for _, key := range rejected {
		if r := runAs(t, env, "exec", "--proxy", s.DSN()+"&"+key+"=x", "--", psql); r.code != command.Failed ||
			!strings.HasPrefix(r.stderr, "entrapg: "+key+": ") {
			t.Errorf("%s: %+v", key, r)
		}
	}
}
