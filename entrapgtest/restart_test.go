package entrapgtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

// admin runs statements as superuser on the real server, and returns the result of the last one.
func admin(t testing.TB, s *entrapgtest.Server, sql string) string {
	t.Helper()
	conn := must[*pgconn.PgConn](t)(pgconn.Connect(t.Context(), s.AdminDSN()))
	defer conn.Close(context.Background())
	results := must[[]*pgconn.Result](t)(conn.Exec(t.Context(), sql).ReadAll())
	return string(results[len(results)-1].Rows[0][0])
}

// session opens a session as a principal's role.
func session(t testing.TB, s *entrapgtest.Server, p *entrapgtest.Principal) (*pgx.Conn, error) {
	t.Helper()
	config := must[*pgx.ConnConfig](t)(pgx.ParseConfig(s.DSN()))
	config.User, config.Password = p.Name, token(t, p, audience).Token
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

func TestServer_RestartEndsSessionsAndKeepsDataAndAddress(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	p := s.Tenant.NewUser("alice@contoso.example")
	createRole(t, s, "", p)
	before := must[*pgx.Conn](t)(session(t, s, p))
	admin(t, s, "create table kept as select 42 as n; select n::text from kept")
	dsn := s.DSN()
	for range 2 {
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := before.Ping(t.Context()); err == nil {
		t.Error("a session continued after the restart")
	}
	if _, err := session(t, s, p); err != nil || s.DSN() != dsn {
		t.Errorf("afterwards: %v; DSN %s, was %s", err, s.DSN(), dsn)
	}
	if n := admin(t, s, "select n::text from kept"); n != "42" {
		t.Errorf("the table has %s", n)
	}
	dir := filepath.Dir(s.CAFile())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("Close did not remove %s: %v", dir, err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a closed server was restarted")
	}
}

func TestServer_RestartDoesNotStopUpstream(t *testing.T) {
	if err := startFront(t, entrapgtest.Config{}).Restart(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestServer_RejectionIsSentVerbatim(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	p := s.Tenant.NewUser("rejected@contoso.example")
	createRole(t, s, "", p)
	s.SetFaults(entrapgtest.Faults{Reject: &entrapgtest.Rejection{Code: "28P99", Message: "No.", Hint: "Try tomorrow."}})
	_, err := session(t, s, p)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "28P99" || pgErr.Message != "No." || pgErr.Hint != "Try tomorrow." {
		t.Errorf("got %v", err)
	}
	logins := s.Logins()
	if l := logins[len(logins)-1]; l.Accepted || l.Code != "28P99" || l.Message != "No." {
		t.Errorf("recorded as %+v", l)
	}
	s.SetFaults(entrapgtest.Faults{})
	if _, err := session(t, s, p); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestServer_ReplicaFollowsPrimaryUntilPromoted(t *testing.T) {
	t.Parallel()
	primary := start(t, entrapgtest.Config{})
	alice := primary.Tenant.NewUser("alice@contoso.example")
	createRole(t, primary, "", alice)
	replica, err := entrapgtest.Start(t.Context(), entrapgtest.Config{Primary: primary})
	if err != nil && strings.Contains(err.Error(), "no such file") {
		t.Skip(err) // some builds of PostgreSQL have no pg_basebackup
	}
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	bob := replica.Tenant.NewUser("bob@contoso.example")
	createRole(t, primary, "", bob) // after the replica was created

	if admin(t, replica, "select pg_is_in_recovery()::text") != "true" {
		t.Error("the server is not a replica")
	}
	deadline := time.Now().Add(time.Minute)
	for admin(t, replica,
		"select count(*)::text from pg_authid where rolpassword is not null and rolname like '%@contoso.example'") != "2" {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not follow")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range []*entrapgtest.Principal{alice, bob} {
		conn, err := session(t, replica, p)
		if err != nil {
			t.Errorf("%s on the replica: %v", p.Name, err)
			continue
		}
		var pgErr *pgconn.PgError
		if _, err := conn.Exec(t.Context(), "create temporary table t ()"); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
			t.Errorf("%s writes to the replica: %v", p.Name, err)
		}
	}

	if err := primary.Close(); err != nil {
		t.Error(err)
	}
	admin(t, replica, "select pg_promote()::text")
	conn, err := session(t, replica, alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "create temporary table t ()"); err != nil {
		t.Errorf("after the promotion: %v", err)
	}
	createRole(t, replica, "", replica.Tenant.NewUser("carol@contoso.example"))
}

func TestServer_ReplicaOfUpstreamIsError(t *testing.T) {
	front := startFront(t, entrapgtest.Config{})
	for _, config := range []entrapgtest.Config{{Primary: front}, {Primary: share(t), Upstream: share(t).AdminDSN()}} {
		if s, err := entrapgtest.Start(t.Context(), config); err == nil {
			s.Close()
			t.Errorf("started with %+v", config)
		}
	}
}
