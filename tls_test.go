package entrapg_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// at routes all hosts to an address, as spoofed DNS would.
func at(addr string) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	})
}

func TestTLS_AzureHostIsReachedUnderEverySSLModeThatVerifies(t *testing.T) {
	_, port, _ := net.SplitHostPort(server().Addr())
	for _, sslmode := range []string{"", "sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"} {
		dsn := "host=" + azureName + " port=" + port + " dbname=postgres sslrootcert=" +
			quote(server().CAFile()) + " " + sslmode
		db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())), at("127.0.0.1"))
		sessionUser(t, db)
	}
}

func TestTLS_CertificateOfUnknownAuthorityIsRejected(t *testing.T) {
	another := start(t, entrapgtest.Config{})
	dsn := strings.Replace(another.DSN(), another.Addr(), server().Addr(), 1)
	db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())))
	var unknown x509.UnknownAuthorityError
	if err := db.PingContext(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("got %v, want an UnknownAuthorityError", err)
	}
}

func TestTLS_ServerWithoutTLSGetsNoToken(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	s.SetFaults(entrapgtest.Faults{NoTLS: true})
	db, _ := open(t, s.DSN(), entrapg.WithCredential(p))
	if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "refused TLS") {
		t.Errorf("got %v", err)
	}
	if n := len(s.Logins()); n != 0 {
		t.Errorf("%d logins were attempted without TLS", n)
	}
}

func TestTLS_RootsAndServerNameCanBeSetByCode(t *testing.T) {
	pem, err := os.ReadFile(server().CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	host, port, _ := net.SplitHostPort(server().Addr())
	dsn := "host=" + host + " dbname=postgres port=" + port
	for name, config := range map[string]*tls.Config{
		"roots":               {RootCAs: roots},
		"a name for a tunnel": {RootCAs: roots, ServerName: azureName},
	} {
		db, _ := open(
			t,
			dsn,
			entrapg.WithCredential(app(t, server())),
			entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.TLSConfig = config }),
		)
		if err := db.PingContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())), entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "elsewhere.example"}
	}))
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("a certificate for another ServerName was accepted")
	}
}

func TestTLS_VerificationCannotBeTurnedOffByCode(t *testing.T) {
	insecure := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.TLSConfig = &tls.Config{InsecureSkipVerify: true}
		for _, f := range c.Fallbacks {
			f.TLSConfig = c.TLSConfig
		}
	})
	for _, settings := range []string{"", "sslmode=verify-full", "sslmode=verify-ca"} {
		c := entrapg.NewConnector("host=db.example.com,db.example.org user=app "+settings,
			entrapg.WithCredential(app(t, server())), insecure, at(server().Addr()))
		_, err := c.Connect(t.Context())
		var unverified *tls.CertificateVerificationError
		if !errors.As(err, &unverified) {
			t.Errorf("%q: got %v, want a CertificateVerificationError", settings, err)
		}
	}
}

func TestTLS_UnixSocketWorksWithSSLModeDisable(t *testing.T) {
	dir, err := os.MkdirTemp("", "entrapg") // t.TempDir's path can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &pipeServer{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	c := entrapg.NewConnector("host="+quote(dir)+" user=app sslmode=disable",
		entrapg.WithCredential(&numbered{life: time.Hour}))
	defer c.Close()
	mustConnect(t, c)
	if s.last() != "token-1" {
		t.Errorf("the server got %q", s.last())
	}
}

func TestTLS_PlaintextOnLoopbackIsAllowedAndRejectionHasHint(t *testing.T) {
	host, port, _ := net.SplitHostPort(server().Addr())
	db, _ := open(t, "host="+host+" port="+port+" sslmode=disable", entrapg.WithCredential(app(t, server())))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	if !errors.As(err, &login) || !strings.Contains(login.Hint, "TLS") {
		t.Errorf("got %v, want a LoginError with a hint about TLS", err)
	}
}

const outsideName = "db.example.com"

var ownNames = []string{azureName, outsideName} // and loopback

type namedAttack struct {
	name string
	attack
	trusted bool // sslrootcert is the authority of its certificate
}

// attacks are tried with every kind of host and every sslmode. The tables in the tests have a
// row for each attack and host, and a column for each sslmode.
var attacks = []namedAttack{
	{"no TLS", attack{tls: "N", reply: cleartextRequest}, false},
	{"error for TLS", attack{tls: string(noHBAEntry), reply: cleartextRequest}, false},
	{"garbage for TLS", attack{tls: "HTTP/1.1 400 Bad Request", reply: cleartextRequest}, false},
	{"bytes before TLS", attack{tls: "S" + string(cleartextRequest), names: ownNames, reply: cleartextRequest}, false}, // CVE-2021-23222
	{"self-signed", attack{tls: "S", names: ownNames, reply: cleartextRequest}, false},
	{"wrong name", attack{tls: "S", names: []string{"elsewhere.example"}, reply: cleartextRequest}, true},
	{"error inside TLS", attack{tls: "S", names: ownNames, reply: noHBAEntry}, false},
	{"MD5", attack{tls: "S", names: ownNames, reply: encode(&pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}})}, false},
	{
		"SCRAM",
		attack{
			tls: "S", names: ownNames,
			reply: encode(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}}),
		},
		false,
	},
	{
		"OAUTHBEARER",
		attack{
			tls: "S", names: ownNames,
			reply: encode(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}}),
		},
		false,
	},
	{"GSS", attack{tls: "S", names: ownNames, reply: encode(&pgproto3.AuthenticationGSS{})}, false},
	{"trust", attack{tls: "S", names: ownNames, reply: loginOK}, false},
}

// table tries every attack with every host and sslmode, and returns a table of what the
// attacker saw.
func table(t *testing.T, more, secret string, opts ...entrapg.Option) string {
	t.Helper()
	sslmodes := []string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	var out strings.Builder
	for _, a := range attacks {
		for _, host := range []string{azureName, outsideName, "127.0.0.1"} {
			kind := map[string]string{azureName: "Azure", outsideName: "outside", "127.0.0.1": "loopback"}[host]
			fmt.Fprintf(&out, "%-16s %-8s", a.name, kind)
			for _, sslmode := range sslmodes {
				dsn := "host=" + host + " user=app " + more
				i := newImpostor(t, a.attack) // separate ones, because pgx dials again to cancel after a failed login
				if sslmode != "" {
					dsn += " sslmode=" + sslmode
				}
				if a.trusted {
					dsn += " sslrootcert=" + quote(i.caFile)
				}
				c := entrapg.NewConnector(dsn, append(opts, i.option())...)
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // before pgx times out
				conn, err := c.Connect(ctx)
				if ctx.Err() != nil {
					t.Errorf("%s, %s: the login did not end before the deadline: %v", a.name, dsn, err)
				}
				cancel()
				if err == nil {
					conn.Close()
				} else if strings.Contains(err.Error(), secret) {
					t.Errorf("%s, %s: the error contains the secret", a.name, dsn)
				}
				saw := i.saw(secret)
				if err == nil {
					saw += "!"
				}
				fmt.Fprintf(&out, " %-7s", saw)
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

// compare reports the rows in which two tables differ.
func compare(t *testing.T, got, want string) {
	t.Helper()
	wanted := strings.Split(strings.Trim(want, "\n"), "\n")[1:]
	rows := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(rows) != len(wanted) {
		t.Fatalf("got\n%s", got)
	}
	for n, row := range rows {
		if row = strings.TrimRight(row, " "); row != wanted[n] {
			t.Errorf("got  %s\nwant %s", row, wanted[n])
		}
	}
}

func TestTLS_AttackerGetsTokenOnlyWithoutVerification(t *testing.T) {
	t.Parallel()
	token := "canary." + rand.Text() + ".canary"
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	got := table(t, "", token, entrapg.WithCredential(credential))
	compare(t, got, `
                           (none) disable allow  prefer require verify-ca verify-full
no TLS           Azure    hello   -       -       -       hello   hello   hello
no TLS           outside  hello   -       -       -       hello   hello   hello
no TLS           loopback hello   SECRET  -       -       hello   hello   hello
error for TLS    Azure    hello   -       -       -       hello   hello   hello
error for TLS    outside  hello   -       -       -       hello   hello   hello
error for TLS    loopback hello   SECRET  -       -       hello   hello   hello
garbage for TLS  Azure    hello   -       -       -       hello   hello   hello
garbage for TLS  outside  hello   -       -       -       hello   hello   hello
garbage for TLS  loopback hello   SECRET  -       -       hello   hello   hello
bytes before TLS Azure    hello   -       -       -       hello   hello   hello
bytes before TLS outside  hello   -       -       -       hello   hello   hello
bytes before TLS loopback hello   SECRET  -       -       hello   hello   hello
self-signed      Azure    hello   -       -       -       hello   hello   hello
self-signed      outside  hello   -       -       -       hello   hello   hello
self-signed      loopback hello   SECRET  -       -       hello   hello   hello
wrong name       Azure    hello   -       -       -       hello   hello   hello
wrong name       outside  hello   -       -       -       SECRET  SECRET  hello
wrong name       loopback hello   SECRET  -       -       SECRET  SECRET  hello
error inside TLS Azure    hello   -       -       -       hello   hello   hello
error inside TLS outside  hello   -       -       -       hello   hello   hello
error inside TLS loopback hello   user    -       -       hello   hello   hello
MD5              Azure    hello   -       -       -       hello   hello   hello
MD5              outside  hello   -       -       -       hello   hello   hello
MD5              loopback hello   user    -       -       hello   hello   hello
SCRAM            Azure    hello   -       -       -       hello   hello   hello
SCRAM            outside  hello   -       -       -       hello   hello   hello
SCRAM            loopback hello   user    -       -       hello   hello   hello
OAUTHBEARER      Azure    hello   -       -       -       hello   hello   hello
OAUTHBEARER      outside  hello   -       -       -       hello   hello   hello
OAUTHBEARER      loopback hello   SECRET  -       -       hello   hello   hello
GSS              Azure    hello   -       -       -       hello   hello   hello
GSS              outside  hello   -       -       -       hello   hello   hello
GSS              loopback hello   user    -       -       hello   hello   hello
trust            Azure    hello   -       -       -       hello   hello   hello
trust            outside  hello   -       -       -       hello   hello   hello
trust            loopback hello   user    -       -       hello   hello   hello
`)
}

func TestTLS_AttackerGetsPasswordOnlyWithoutVerification(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery"
	got := table(t, "entra_credential=none password="+password, password)
	compare(t, got, `
                           (none) disable allow  prefer require verify-ca verify-full
no TLS           Azure    hello   -       -       -       hello   hello   hello
no TLS           outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
no TLS           loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
error for TLS    Azure    hello   -       -       -       hello   hello   hello
error for TLS    outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
error for TLS    loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
garbage for TLS  Azure    hello   -       -       -       hello   hello   hello
garbage for TLS  outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
garbage for TLS  loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
bytes before TLS Azure    hello   -       -       -       hello   hello   hello
bytes before TLS outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
bytes before TLS loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
self-signed      Azure    hello   -       -       -       hello   hello   hello
self-signed      outside  hello   SECRET  SECRET  SECRET  SECRET  hello   hello
self-signed      loopback hello   SECRET  SECRET  SECRET  SECRET  hello   hello
wrong name       Azure    hello   -       -       -       hello   hello   hello
wrong name       outside  hello   SECRET  SECRET  SECRET  SECRET  SECRET  hello
wrong name       loopback hello   SECRET  SECRET  SECRET  SECRET  SECRET  hello
error inside TLS Azure    hello   -       -       -       hello   hello   hello
error inside TLS outside  hello   user    user    user    user    hello   hello
error inside TLS loopback hello   user    user    user    user    hello   hello
MD5              Azure    hello   -       -       -       hello   hello   hello
MD5              outside  hello   hash    hash    hash    hash    hello   hello
MD5              loopback hello   hash    hash    hash    hash    hello   hello
SCRAM            Azure    hello   -       -       -       hello   hello   hello
SCRAM            outside  hello   user    user    user    user    hello   hello
SCRAM            loopback hello   user    user    user    user    hello   hello
OAUTHBEARER      Azure    hello   -       -       -       hello   hello   hello
OAUTHBEARER      outside  hello   user    user    user    user    hello   hello
OAUTHBEARER      loopback hello   user    user    user    user    hello   hello
GSS              Azure    hello   -       -       -       hello   hello   hello
GSS              outside  hello   user    user    user    user    hello   hello
GSS              loopback hello   user    user    user    user    hello   hello
trust            Azure    hello   -       -       -       hello   hello   hello
trust            outside  hello   user!   user!   user!   user!   hello   hello
trust            loopback hello   user!   user!   user!   user!   hello   hello
`)
}

func TestTLS_SystemRootsAreUsedUnlessSet(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	pem, err := os.ReadFile(server().CAFile())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(home, ".postgresql", "root.crt") // libpq's default
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dsn, env string
		chosen   bool
	}{
		{"host=db.example.com", "", false},
		{"postgres://db.example.com", "", false},
		{"postgres://db.example.com/?application_name=x", "", false},
		{"host=db.example.com", root, true},
		{"host=db.example.com sslrootcert=" + quote(root), "", true},
		{"host=db.example.com sslmode=verify-full", "", runtime.GOOS != "windows"}, // as in pgx
	} {
		t.Setenv("PGSSLROOTCERT", test.env)
		config, err := configOf(t, test.dsn)
		if err != nil {
			t.Fatal(err)
		}
		if chosen := config.TLSConfig.RootCAs != nil; chosen != test.chosen {
			t.Errorf("%+v: roots set: %t", test, chosen)
		}
	}
}
