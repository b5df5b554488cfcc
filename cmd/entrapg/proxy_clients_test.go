package main

import (
	"bytes"
	"context"
	"database/sql"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

// The programs of PostgreSQL connect through the proxy.

// A clientOfProxy runs programs that know only the proxy's address and password.
type clientOfProxy struct {
	proxy *runningProxy
	admin *sql.DB // of PostgreSQL itself
	env   []string
}

func newClientOfProxy(t *testing.T, s *entrapgtest.Server, role string) *clientOfProxy {
	t.Helper()
	return newClientOfDatabase(t, s, role, "postgres")
}

func newClientOfDatabase(t *testing.T, s *entrapgtest.Server, role, database string) *clientOfProxy {
	t.Helper()
	_, env := identityWith(t, s, role, true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", s.DSN("dbname="+database))
	host, port, err := net.SplitHostPort(p.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := sql.Open("pgx", s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return &clientOfProxy{p, admin, []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + role, "PGDATABASE=" + database,
		"PGPASSWORD=" + p.password,
	}}
}

// createDatabase creates a database in which every role can create schemas. pg_dump fails if
// another test drops an object of the same database.
func createDatabase(t *testing.T, s *entrapgtest.Server, name string) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, query := range []string{
		"drop database if exists " + name + " with (force)", // of an earlier run, with -count
		"create database " + name,
		"grant create on database " + name + " to public",
	} {
		if _, err := admin.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
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
	s := shortTokens(t)
	c := newClientOfProxy(t, s, "client-pgbench")
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte("select 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.proxy.logInWithShortToken(t, s)
	// It runs longer than the token is valid.
	out := c.run(t, "pgbench", "--connect", "--no-vacuum", "--client", "4", "--time", "3", "--file", script)
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
	c := newClientOfProxy(t, azureServer(t), "client-cancel")
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
	// PostgreSQL sends the error before it records that the session is idle.
	await(t, func() bool { return ask(t, c.admin, active) == "0" }, c.proxy.log.String)
}

func TestProxyClients_PsqlCopiesBothWays(t *testing.T) {
	t.Parallel()
	c := newClientOfProxy(t, azureServer(t), "client-copy")
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
	s := azureServer(t)
	createDatabase(t, s, "client_dump")
	c := newClientOfDatabase(t, s, "client-dump", "client_dump")
	c.run(t, "psql", "-Xc", "create schema client_dump; create table client_dump.a as select generate_series(1, 1000) as n; "+
		"create table client_dump.b as table client_dump.a; select lo_from_bytea(0, 'large')")
	dump := filepath.Join(t.TempDir(), "dump")
	c.run(t, "pg_dump", "--jobs", "4", "--format", "directory", "--file", dump)
	c.run(t, "psql", "-Xc", "drop table client_dump.a, client_dump.b")
	c.run(t, "pg_restore", "--jobs", "4", "--dbname", "client_dump", "--schema", "client_dump", dump)
	if got := c.run(t, "psql", "-XAtc", "select (select sum(n) from client_dump.a) + (select sum(n) from client_dump.b)"); got != "1001000\n" {
		t.Errorf("got %s", got)
	}
}

func TestProxyClients_ReceivesLogicalReplication(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	c := newClientOfProxy(t, s, "client-replication")
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
	if err := s.RevokeTokens(); err != nil { // its session continues
		t.Fatal(err)
	}
	c.exec(t, "insert into client_replication values ('second')")
	await(t, func() bool { return strings.Contains(received(), "note[text]:'second'") }, received)
	receiver.Process.Signal(os.Interrupt)
	receiver.Wait()
	await(t, func() bool {
		return ask(t, c.admin, "select count(*) from pg_replication_slots where slot_name = 'client_replication' and active") == "0"
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
	c := newClientOfProxy(t, azureServer(t), "client-jdbc")
	cmd := exec.CommandContext(t.Context(), "java", "-cp", jars[len(jars)-1], "testdata/ProxyClient.java")
	cmd.Env = c.env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "ok\n") {
		t.Errorf("%v\n%s\n%s", err, out, c.proxy.log)
	}
}
