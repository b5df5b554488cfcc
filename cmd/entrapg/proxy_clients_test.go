package main

import (
	"bytes"
	"database/sql"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/entrapgtest"
)

// The programs of PostgreSQL connect through the proxy, with tokens that are valid for 2 seconds.

// A clientOfProxy runs programs that know only the proxy's address and password.
type clientOfProxy struct {
	server *entrapgtest.Server
	proxy  *runningProxy
	admin  *sql.DB // of PostgreSQL itself
	env    []string
}

func newClientOfProxy(t *testing.T, role string) *clientOfProxy {
	t.Helper()
	s := shortTokens(t)
	_, env := identityWith(t, s, role, true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0")
	host, port, err := net.SplitHostPort(p.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("pgx", s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return &clientOfProxy{s, p, admin, []string{
		"PATH=" + os.Getenv(
			"PATH",
		), "LC_ALL=C", "PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + role, "PGDATABASE=postgres", "PGPASSWORD=" + p.password,
	}}
}

func (c *clientOfProxy) exec(t *testing.T, query string) {
	t.Helper()
	if _, err := c.admin.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

func (c *clientOfProxy) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), installed(t, name), args...)
	cmd.Env = c.env
	return cmd
}

// run runs a program, which must succeed.
func (c *clientOfProxy) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := c.command(t, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s\n%s", name, args, err, out, c.proxy.log)
	}
	return string(out)
}

func TestProxyClients_PgbenchLogsInForEachTransaction(t *testing.T) {
	t.Parallel()
	c := newClientOfProxy(t, "client-pgbench")
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte("select 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := c.run(t, "pgbench", "--connect", "--no-vacuum", "--client", "4", "--time", "5", "--file", script)
	if !strings.Contains(out, "number of failed transactions: 0 ") {
		t.Errorf("got\n%s", out)
	}
	fetched := regexp.MustCompile(`number of transactions actually processed: [1-9]`)
	if !fetched.MatchString(out) {
		t.Errorf("got\n%s", out)
	}
}

func TestProxyClients_PsqlCancelsQuery(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	c := newClientOfProxy(t, "client-cancel")
	psql := c.command(t, "psql", "-Xc", "select pg_sleep(3600)")
	var out bytes.Buffer
	psql.Stdout, psql.Stderr = &out, &out
	if err := psql.Start(); err != nil {
		t.Fatal(err)
	}
	active := "select count(*) from pg_stat_activity where usename = 'client-cancel' and query like 'select pg_sleep%' and state = 'active'"
	await(t, func() bool { return ask(t, c.admin, active) == "1" }, c.proxy.log.String)
	psql.Process.Signal(os.Interrupt) // Ctrl-C
	psql.Wait()
	if !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("got %s", &out)
	}
	if got := ask(t, c.admin, active); got != "0" {
		t.Errorf("%s queries still run", got)
	}
}

func TestProxyClients_PsqlCopiesBothWays(t *testing.T) {
	t.Parallel()
	c := newClientOfProxy(t, "client-copy")
	c.exec(t, `create table client_copy (line text); grant all on client_copy to "client-copy"`)
	defer c.exec(t, "drop table client_copy")
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	content := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 200_000) // 20 MB
	if err := os.WriteFile(in, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "psql", "-Xc", `\copy client_copy from '`+filepath.ToSlash(in)+`'`)
	c.run(t, "psql", "-Xc", `\copy client_copy to '`+filepath.ToSlash(out)+`'`)
	got, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, want %d: %v", len(got), len(content), err)
	}
}

func TestProxyClients_DumpAndRestoreWithSeveralJobs(t *testing.T) {
	t.Parallel()
	c := newClientOfProxy(t, "client-dump")
	c.exec(t, `create schema client_dump authorization "client-dump"`)
	defer c.exec(t, "drop schema client_dump cascade")
	c.run(t, "psql", "-Xc", "create table client_dump.a as select generate_series(1, 1000) as n; "+
		"create table client_dump.b as table client_dump.a; select lo_from_bytea(0, 'large')")
	dump := filepath.Join(t.TempDir(), "dump")
	c.run(t, "pg_dump", "--jobs", "4", "--format", "directory", "--file", dump, "--schema", "client_dump")
	c.run(t, "psql", "-Xc", "drop table client_dump.a, client_dump.b")
	c.run(t, "pg_restore", "--jobs", "4", "--dbname", "postgres", "--schema", "client_dump", dump)
	if got := c.run(t, "psql", "-XAtc", "select (select sum(n) from client_dump.a) + (select sum(n) from client_dump.b)"); got != "1001000\n" {
		t.Errorf("got %s", got)
	}
}

func TestProxyClients_ReceivesLogicalReplication(t *testing.T) {
	t.Parallel()
	c := newClientOfProxy(t, "client-replication")
	c.exec(t, `alter role "client-replication" replication`)
	c.exec(t, "create table client_replication (note text)")
	defer c.exec(t, "drop table client_replication")
	const slot = "client_replication"
	c.run(t, "pg_recvlogical", "--dbname", "postgres", "--slot", slot, "--plugin", "test_decoding", "--create-slot")
	changes := filepath.Join(t.TempDir(), "changes")
	receiver := c.command(t, "pg_recvlogical", "--dbname", "postgres", "--slot", slot, "--start", "--no-loop",
		"--file", changes, "--fsync-interval", "0", "--status-interval", "1")
	var out transcript
	receiver.Stdout, receiver.Stderr = &out, &out
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	defer receiver.Process.Kill()
	received := func() string {
		content, _ := os.ReadFile(changes)
		return string(content) + out.String()
	}
	c.exec(t, "insert into client_replication values ('first')")
	await(t, func() bool { return strings.Contains(received(), "note[text]:'first'") }, received)
	c.exec(t, "select pg_sleep(3)") // longer than a token is valid
	c.exec(t, "insert into client_replication values ('second')")
	await(t, func() bool { return strings.Contains(received(), "note[text]:'second'") }, received)
	receiver.Process.Signal(os.Interrupt)
	receiver.Wait()
	await(t, func() bool {
		return exec.Command(installed(t, "psql"), "-XAtc", "select 1", c.server.AdminDSN()).Run() == nil &&
			ask(t, c.admin, "select count(*) from pg_replication_slots where slot_name = 'client_replication' and active") == "0"
	}, received)
	c.run(t, "pg_recvlogical", "--dbname", "postgres", "--slot", slot, "--drop-slot")
}

func TestProxyClients_PgJDBCLogsIn(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip(err)
	}
	home, _ := os.UserHomeDir()
	jars, err := filepath.Glob(filepath.Join(home, ".m2/repository/org/postgresql/postgresql/*/postgresql-*.jar")) // Maven's
	if err != nil {
		t.Fatal(err)
	}
	const debian = "/usr/share/java/postgresql.jar" // of libpostgresql-jdbc-java
	if _, err := os.Stat(debian); err == nil {
		jars = append(jars, debian)
	}
	if len(jars) == 0 {
		t.Skip("pgJDBC is not installed")
	}
	c := newClientOfProxy(t, "client-jdbc")
	cmd := exec.CommandContext(t.Context(), "java", "-cp", jars[len(jars)-1], "testdata/ProxyClient.java")
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
		t.Errorf("%v\n%s\n%s", err, out, c.proxy.log)
	}
}
