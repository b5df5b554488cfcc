package engine_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
)

func TestPassword_IsRequired(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u, Password: password})
	for name, settings := range map[string]string{
		"wrong": "password=wrong", "empty": "password=''", "longer": "password=\"" + password + "x\"",
	} {
		if conn, err := p.tryConnect(t, settings); err == nil {
			t.Errorf("%s: logged in as %s", name, query(t, conn, "select current_user"))
		}
	}
	rejected := p.rejection(t, "password=wrong")
	if rejected.Code != "28P01" || rejected.Severity != "FATAL" || rejected.Message != `password authentication failed for user "client"` ||
		!strings.Contains(rejected.Hint, "proxy") {
		t.Errorf("rejected with %+v", rejected)
	}
	if n := u.Stats().TokenRequests; n > 0 {
		t.Errorf("%d tokens were requested for clients without the password", n)
	}
	if n := p.Stats().Rejected[engine.RejectedPassword]; n < 3 {
		t.Errorf("%d rejections counted", n)
	}
	if log := p.log.String(); strings.Contains(log, password) {
		t.Errorf("the log contains the password: %s", log)
	}
	query(t, p.connect(t, ""), "select 1::text")
}

func TestPassword_LogsPsqlIn(t *testing.T) {
	s := server(t)
	for _, secret := range []string{"simple", "p\u00e4ssw\u00f6rd", "\ufb01ne\u00a0print", "\u212bngstr\u00f6m", "\xff\xfe not UTF-8"} {
		p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: secret})
		cmd := p.psql(t, "password="+quote(secret), "-c", "select 'in'")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "in\n" {
			t.Errorf("%q: %s, error %v", secret, out, err)
		}
		if _, err := p.tryConnect(t, "password="+quote(secret)); err != nil && !strings.Contains(secret, "\xff") {
			t.Errorf("%q: pgx: %v", secret, err)
		}
	}
}

func quote(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }

func TestPassword_IsNotRequiredIfClientsAreTrusted(t *testing.T) {
	s := server(t)
	dir, err := os.MkdirTemp("", "entrapg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	p := startOn(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))}, l)
	client := dialWire(t, "unix", p.addr.String())
	client.startup("3.0", "user", "client", "database", "postgres")
	client.untilReady()
	client.Close()
	await(t, "the log of the session", func() bool { return strings.Contains(p.log.String(), "session ended") })
	if log := p.log.String(); !strings.Contains(log, "client=unix") {
		t.Error(log)
	}
}

// TestPassword_RejectsInvalidMessages sends invalid messages instead of the exchange.
func TestPassword_RejectsInvalidMessages(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u, Password: password, StartupTimeout: time.Hour})
	for name, messages := range map[string][]string{
		"a query":                {"Qselect 1\x00"},
		"cleartext":              {"p" + password + "\x00"},
		"another mechanism":      {"pSCRAM-SHA-256-PLUS\x00\x00\x00\x00\x10n,,n=,r=abcdefgh"},
		"channel binding":        {"pSCRAM-SHA-256\x00\x00\x00\x00\x22p=tls-server-end-point,,n=,r=abcdef"},
		"authorization identity": {"pSCRAM-SHA-256\x00\x00\x00\x00\x14n,a=root,n=,r=abcdef"},
		"mandatory extension":    {"pSCRAM-SHA-256\x00\x00\x00\x00\x10n,,m=x,n=,r=abcd"},
		"no nonce":               {"pSCRAM-SHA-256\x00\x00\x00\x00\x08n,,n=,r="},
		"negative length":        {"pSCRAM-SHA-256\x00\xff\xff\xff\xff"},
		"no proof":               {"pSCRAM-SHA-256\x00\x00\x00\x00\x0en,,n=,r=abcdef", "pc=biws,r=abcdef"},
		"another nonce": {
			"pSCRAM-SHA-256\x00\x00\x00\x00\x0en,,n=,r=abcdef",
			"pc=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		},
		"a startup after failure": {"p" + strings.Repeat("x", 2000)},
	} {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		client.startup("3.0", "user", "client", "database", "postgres")
		for _, m := range messages {
			client.send(m[0], m[1:])
		}
		for _, m := range client.untilReady() {
			if m[0] == 'Z' || m[0] == 'R' && m[5:] == "\x00\x00\x00\x00" {
				t.Errorf("%s: logged in: %q", name, m)
			}
		}
		client.Close()
	}
	if stats := p.Stats(); stats.Sessions != 0 || u.Stats().TokenRequests != 0 {
		t.Errorf("%+v, %+v", stats, u.Stats())
	}
}

// Clients that do not know the password cannot fill a disk with log records.
func TestPassword_LogOfAttackersIsShort(t *testing.T) {
	p := start(t, &engine.Server{Upstream: upstream(t, "host=127.0.0.1 sslmode=disable"), Password: password})
	long := strings.Repeat("\x01é", 1500)
	client := dialWire(t, p.addr.Network(), p.addr.String())
	client.startup("3.0", "user", "client", "database", long, "application_name", long)
	client.send('p', "")
	client.untilReady()
	await(t, "the log", func() bool { return strings.Contains(p.log.String(), "reason=password") })
	if log := p.log.String(); len(log) > 1500 || strings.Count(log, "\n") != 1 {
		t.Errorf("the log has %d bytes: %s", len(log), log)
	}
}
