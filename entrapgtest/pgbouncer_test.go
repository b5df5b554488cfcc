//go:build !windows

package entrapgtest_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// pooled starts a server whose sessions use PgBouncer in transaction mode, as on Azure's
// port 6432. Clients log in with tokens.
func pooled(t *testing.T) *entrapgtest.Server {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil { // not on the PATH of every user on Debian
		path, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatalf("in CI, scripts/install-pgbouncer.sh must have installed PgBouncer: %v", err)
	case err != nil:
		t.Skip("PgBouncer is not installed; scripts/install-pgbouncer.sh installs it")
	}
	upstream := must[*pgx.ConnConfig](t)(pgx.ParseConfig(share(t).AdminDSN()))
	dir := temporary(t, "pgbouncer")
	files := map[string]string{
		"ini": fmt.Sprintf(`[databases]
* = host=%s port=%d auth_user=%s
[pgbouncer]
pool_mode = transaction
default_pool_size = 2
listen_port = 6432
unix_socket_dir = %s
auth_type = scram-sha-256
auth_file = %s
auth_query = select usename, passwd from pg_catalog.pg_shadow where usename = $1
`, upstream.Host, upstream.Port, upstream.User, dir, filepath.Join(dir, "users")),
		"users": fmt.Sprintf("%q %q\n", upstream.User, upstream.Password),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil { // it contains PgBouncer's socket
		t.Fatal(err)
	}
	args := []string{filepath.Join(dir, "ini")}
	if os.Getuid() == 0 { // PgBouncer does not run as root
		name := "postgres"
		if _, err := user.Lookup(name); err != nil {
			name = "nobody"
		}
		args = append(args, "-u", name)
	}
	var log bytes.Buffer
	pooler := exec.Command(path, args...)
	pooler.Stderr = &log
	if err := pooler.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = pooler.Wait()
	}()
	t.Cleanup(func() {
		_ = pooler.Process.Kill()
		<-ended
	})
	dsn := fmt.Sprintf("host=%s port=6432 user=%s password=%s dbname=postgres sslmode=disable",
		dir, upstream.User, upstream.Password)
	eventually(t, "PgBouncer answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("PgBouncer ended: %s", &log)
		default:
		}
		conn, err := pgconn.Connect(t.Context(), dsn)
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
	s := must[*entrapgtest.Server](t)(entrapgtest.Start(t.Context(), entrapgtest.Config{Upstream: dsn}))
	t.Cleanup(func() { s.Close() })
	return s
}

func TestServer_SessionsCanUsePgBouncer(t *testing.T) {
	s := pooled(t)
	app, stranger := s.Tenant.NewUserAssignedIdentity("pooled"), s.Tenant.NewUserAssignedIdentity("unpooled")
	createRole(t, s, "", app)
	for _, mode := range []string{"exec", "simple_protocol"} {
		connector := entrapg.NewConnector(s.DSN("user=pooled", "default_query_exec_mode="+mode), entrapg.WithCredential(app),
			entrapg.WithLogger(nil))
		s.SetFaults(entrapgtest.Faults{TokenLife: time.Second}) // only of the first token
		if _, _, err := connector.Credentials(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.SetFaults(entrapgtest.Faults{})
		first := connector.Stats().TokenExpiry
		db := sql.OpenDB(connector)
		db.SetMaxIdleConns(0) // every query logs in
		backends := map[int]bool{}
		var mu sync.Mutex
		var workers sync.WaitGroup
		for expired := false; !expired; {
			expired = time.Now().After(first)
			for i := range 4 { // more clients than PgBouncer has connections
				workers.Go(func() {
					var backend int
					var n string
					err := db.QueryRowContext(t.Context(), "select pg_backend_pid(), $1::text", strconv.Itoa(i)).Scan(&backend, &n)
					mu.Lock()
					defer mu.Unlock()
					if err != nil || n != strconv.Itoa(i) {
						t.Errorf("%s: %q, %v", mode, n, err)
					}
					backends[backend] = true
				})
			}
			workers.Wait()
		}
		if !connector.Stats().TokenExpiry.After(first) {
			t.Errorf("%s: all logins used the first token", mode)
		}
		db.Close()
		if len(backends) == 0 || len(backends) > 2 {
			t.Errorf("%s: %d connections to PostgreSQL, want at most 2", mode, len(backends))
		}
	}

	err := logIn(t, s, "pooled", token(t, stranger, audience).Token)
	if !hasCode(err, "28000") {
		t.Errorf("another principal: %v", err)
	}
	config := must[*pgx.ConnConfig](t)(pgx.ParseConfig(s.DSN("user=pooled", "jit=off")))
	config.Password = token(t, app, audience).Token
	var pgErr *pgconn.PgError
	if _, err := pgx.ConnectConfig(t.Context(), config); !errors.As(err, &pgErr) || pgErr.Code != "08P01" {
		t.Errorf("a parameter that PgBouncer does not support: %v", err)
	}
}
