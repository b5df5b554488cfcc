package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestPgBouncer_ProgramWorksDirectlyWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db := open(dsn)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		if err := setUp(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		placed := 0
		return func() error {
			count, err := place(t.Context(), db, "tea", 2)
			if placed++; err == nil && count != placed {
				err = fmt.Errorf("%d orders were placed and %d counted", placed, count)
			}
			return err
		}
	})
}

// program returns the path of PgBouncer. If it is missing, the test is skipped,
// but fails in CI.
func program(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil { // on Debian, /usr/sbin is not on every user's PATH
		path, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("in CI, scripts/install-pgbouncer.sh must have installed PgBouncer: %v", err)
	case err != nil:
		t.Skip("PgBouncer is not installed; scripts/install-pgbouncer.sh installs it")
	}
	return path
}

// start starts PostgreSQL, and in front of it PgBouncer in transaction mode with
// the given number of connections. It returns PgBouncer's DSN.
func start(t *testing.T, connections int) (dsn string) {
	t.Helper()
	path := program(t)
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	upstream, err := pgx.ParseConfig(server.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	settings := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
pool_mode = transaction
default_pool_size = %d
listen_port = 6432
unix_socket_dir = %s
auth_type = plain
auth_file = %s
`, upstream.Host, upstream.Port, connections, dir, filepath.Join(dir, "users"))
	if keepsStatements(t, path) {
		settings += "max_prepared_statements = 0\n" // as on Azure by default
	}
	for name, content := range map[string]string{
		"ini":   settings,
		"users": fmt.Sprintf("%q %q\n", upstream.User, upstream.Password),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{filepath.Join(dir, "ini")}
	if os.Getuid() == 0 { // PgBouncer does not run as root
		name := "postgres"
		if _, err := user.Lookup(name); err != nil {
			name = "nobody"
		}
		args = append(args, "-u", name)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	pooler := exec.CommandContext(t.Context(), path, args...)
	pooler.Stderr = &log
	if err := pooler.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { pooler.Wait(); close(ended) }()
	t.Cleanup(func() { <-ended })
	dsn = fmt.Sprintf(
		"host=%s port=6432 sslmode=disable dbname=postgres user=%s password=%s entra_credential=none",
		dir,
		upstream.User,
		upstream.Password,
	)
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := connect(t.Context(), dsn)
		if err == nil {
			conn.Close(t.Context())
			return dsn
		}
		select {
		case <-ended:
			t.Fatalf("PgBouncer ended: %s", log.String())
		default:
		}
		if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
	}
}

// keepsStatements reports whether PgBouncer supports max_prepared_statements.
func keepsStatements(t *testing.T, path string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return major > 1 || minor >= 21
}

func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	connector := entrapg.NewConnector(dsn)
	defer connector.Close()
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.(*stdlib.Conn).Conn(), nil
}

func TestPgBouncer_ProgramWorksInTransactionMode(t *testing.T) {
	dsn := start(t, 2)
	db := open(dsn)
	defer db.Close()
	if err := setUp(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 5 {
				if _, err := place(t.Context(), db, "tea", 2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	if count, err := place(t.Context(), db, "tea", 2); err != nil || count != 41 {
		t.Errorf("%d orders, %v", count, err)
	}
}

func TestPgBouncer_ExecModesThatWorkInTransactionMode(t *testing.T) {
	dsn := start(t, 4)
	for _, mode := range []string{"exec", "simple_protocol", "cache_describe"} {
		if failures, wrong := query(t, dsn+" default_query_exec_mode="+mode); len(failures) > 0 || wrong > 0 {
			t.Errorf("%s: of %d queries, %d returned a wrong result and these failed: %v", mode, queries, wrong, failures)
		}
	}
}

func TestPgBouncer_DefaultExecModeFailsInTransactionMode(t *testing.T) {
	dsn := start(t, 4)
	for _, mode := range []string{"", " default_query_exec_mode=cache_statement"} {
		failures, _ := query(t, dsn+mode)
		if len(failures) == 0 {
			t.Errorf("mode %q: no query failed", mode)
		}
		for _, err := range failures {
			if hint := entrapg.Explain(err); !strings.Contains(hint, "default_query_exec_mode") {
				t.Errorf("%v: explained as %q", err, hint)
			}
		}
	}
}

// Between the two steps of a query, another client replaces its statement.
func TestPgBouncer_DescribeExecReturnsWrongResultsInTransactionMode(t *testing.T) {
	dsn := start(t, 1)
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		if failures, wrong := query(t, dsn+" default_query_exec_mode=describe_exec"); wrong > 0 || len(failures) > 0 {
			return
		}
	}
	t.Error("all queries returned the right result for a minute")
}

const queries = 160

// query runs queries with 8 concurrent clients. It returns the errors and the
// number of wrong results.
func query(t *testing.T, dsn string) (failures []error, wrong int) {
	t.Helper()
	db := sql.OpenDB(entrapg.NewConnector(dsn))
	defer db.Close()
	const clients = 8
	var running sync.WaitGroup
	var mu sync.Mutex
	for client := range clients {
		running.Go(func() {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for n := range queries / clients {
				var got int
				err := conn.QueryRowContext(t.Context(), fmt.Sprintf("select $1::int + %d", n%4), client).Scan(&got)
				mu.Lock()
				switch {
				case err != nil:
					failures = append(failures, err)
				case got != client+n%4:
					wrong++
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return failures, wrong
}

// With a single connection to PostgreSQL, one client's LISTEN affects another client.
func TestPgBouncer_NotificationsReachAnotherClientInTransactionMode(t *testing.T) {
	dsn := start(t, 1)
	dsn += " default_query_exec_mode=exec"
	listener, err := connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close(t.Context())
	other, err := connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := listener.Exec(t.Context(), "listen jobs"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), "notify jobs, 'tea'"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	notification, err := other.WaitForNotification(ctx)
	if err != nil || notification.Payload != "tea" {
		t.Errorf("the other client got %v, %v", notification, err)
	}
}

func TestPgBouncer_StartupParameters(t *testing.T) {
	dsn := start(t, 1)
	for _, accepted := range []string{
		"application_name=shop", "client_encoding=UTF8", "datestyle=ISO", "timezone=UTC",
		"standard_conforming_strings=on",
	} {
		conn, err := connect(t.Context(), dsn+" "+accepted)
		if err != nil {
			t.Errorf("%s: %v", accepted, err)
			continue
		}
		conn.Close(t.Context())
	}
	for _, rejected := range []string{
		"statement_timeout=5s", "search_path=shop", "lock_timeout=5s",
		"idle_in_transaction_session_timeout=5s",
	} {
		conn, err := connect(t.Context(), dsn+" "+rejected)
		if err == nil {
			conn.Close(t.Context())
		}
		if err == nil || entrapg.Explain(err) == "" {
			t.Errorf("%s: %v, explained as %q", rejected, err, entrapg.Explain(err))
		}
	}
}
