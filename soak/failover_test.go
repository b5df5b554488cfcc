package main

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

const (
	one = "one.shop.example"
	two = "two.shop.example"
)

// toLoopback resolves the names in the servers' certificates.
var toLoopback = entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
})

// TestFailover_WritesResumeOnPromotedReplica kills the primary under load. All
// acknowledged rows were replicated and must exist.
func TestFailover_WritesResumeOnPromotedReplica(t *testing.T) {
	before := goleak.IgnoreCurrent()
	primary := start(t, entrapgtest.Config{Hostnames: []string{one}})
	replica := start(t, entrapgtest.Config{Hostnames: []string{two}, Primary: primary})
	admin(t, primary, "alter system set synchronous_standby_names = '*'")
	admin(t, primary, "alter system set synchronous_commit = on")
	admin(t, primary, "select pg_reload_conf()")

	app := primary.Tenant.NewServicePrincipal("app")
	r, err := startRig(t.Context(), primary, dsn(t, host{one, primary}, host{two, replica}), app, false, false, toLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	warm(t, r)
	for _, l := range replica.Logins() {
		if l.Accepted {
			t.Fatalf("a connection for writing went to the replica: %+v", l)
		}
	}

	failover := &fault{
		name: "failover", within: soon,
		allows: map[string][]string{
			sqlDB: {network, deadline, "query 57P01", "query 57P02", "login 57P01", "login 57P03", "login 08006"},
			pgxPool: {
				network, deadline, "query 57P01", "query 57P02", "login 57P01", "login 57P03",
				"login 08006", "login 28000",
			},
		},
		inject: func(ctx context.Context, _ *entrapgtest.Server) error {
			if err := primary.Close(); err != nil {
				return err
			}
			if err := replica.RevokeTokens(); err != nil { // so that it needs a new one
				return err
			}
			admin(t, replica, "select pg_promote()")
			return nil
		},
	}
	tokens := r.connector.Stats().TokenRequests
	_, committed := r.ledger.writers[0].acknowledged()
	if _, err := r.expose(t.Context(), failover); err != nil {
		t.Fatal(err)
	}
	if err := sleep(t.Context(), failover.within+time.Second); err != nil { // the last second is without a fault
		t.Fatal(err)
	}
	if _, now := r.ledger.writers[0].acknowledged(); now <= committed {
		t.Error("writes have not resumed")
	}
	if now := r.connector.Stats().TokenRequests; now <= tokens {
		t.Error("the new primary accepted a revoked token")
	}
	t.Logf("failures: %v", r.checker.failures())
	finish(t, r, replica.AdminDSN())
	replica.Close()
	noneLeft(t, before)
}

func TestFailover_EachServerIsVerifiedByItsOwnName(t *testing.T) {
	first := start(t, entrapgtest.Config{Hostnames: []string{one}})
	second := start(t, entrapgtest.Config{Hostnames: []string{two}, Primary: first})
	app := first.Tenant.NewServicePrincipal("app")
	if err := first.CreateRole(t.Context(), "", app); err != nil {
		t.Fatal(err)
	}
	// Swap the names: each server has the other's certificate.
	c := entrapg.NewConnector(dsn(t, host{two, first}, host{one, second}), toLoopback, entrapg.WithCredential(app))
	defer c.Close()
	_, err := c.Connect(t.Context())
	var wrong x509.HostnameError
	if !errors.As(err, &wrong) || strings.Count(err.Error(), "certificate is valid for") != 2 {
		t.Errorf("got %v, want that neither certificate is for its host", err)
	}
	if n := len(first.Logins()) + len(second.Logins()); n != 0 {
		t.Errorf("%d logins were attempted", n)
	}
}

type host struct {
	name   string
	server *entrapgtest.Server
}

// dsn returns a DSN of both hosts that leads to the one that accepts writes. It
// trusts both servers' authorities.
func dsn(t testing.TB, hosts ...host) string {
	t.Helper()
	var roots []byte
	var addrs []string
	for _, h := range hosts {
		_, port, err := net.SplitHostPort(h.server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, net.JoinHostPort(h.name, port))
		authority, err := os.ReadFile(h.server.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, authority...)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, roots, 0o600); err != nil {
		t.Fatal(err)
	}
	return "postgres://" + strings.Join(addrs, ",") +
		"/postgres?sslmode=verify-full&target_session_attrs=read-write&sslrootcert=" + url.QueryEscape(file)
}

// admin runs a statement as superuser, without the front.
func admin(t testing.TB, s *entrapgtest.Server, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}
