package entrapg_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// at routes all hosts to an address, as a spoofed DNS would.
func at(addr string) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	})
}

func TestAzureHostIsReachedUnderRequireWhereItsCertificateVerifies(t *testing.T) {
	_, port, _ := net.SplitHostPort(server().Addr())
	for _, sslmode := range []string{"", "sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"} {
		dsn := "host=" + azureName + " port=" + port + " dbname=postgres sslrootcert=" + quote(server().CAFile()) + " " + sslmode
		db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())), at("127.0.0.1"))
		sessionUser(t, db)
	}
}

func TestServerWithACertificateOfAnotherAuthorityIsRefused(t *testing.T) {
	another := start(t, entrapgtest.Config{})
	dsn := strings.Replace(another.DSN(), another.Addr(), server().Addr(), 1)
	db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())))
	var unknown x509.UnknownAuthorityError
	if err := db.PingContext(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("got %v, want an UnknownAuthorityError", err)
	}
}

func TestServerWithoutTLSGetsNoToken(t *testing.T) {
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

func TestRootsAndServerNameCanBeSetByCode(t *testing.T) {
	pem, err := os.ReadFile(server().CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	host, port, _ := net.SplitHostPort(server().Addr())
	dsn := "host=" + host + " dbname=postgres port=" + port
	for name, config := range map[string]*tls.Config{
		"roots alone":         {RootCAs: roots},
		"a name for a tunnel": {RootCAs: roots, ServerName: azureName},
	} {
		db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())), entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.TLSConfig = config }))
		if err := db.PingContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	db, _ := open(t, dsn, entrapg.WithCredential(app(t, server())), entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "elsewhere.example"}
	}))
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("a certificate for another name than the one set was accepted")
	}
}

func TestVerificationCannotBeTurnedOffByAccident(t *testing.T) {
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

func TestUnixSocketWithoutTLSWorksWhereSSLModeIsDisable(t *testing.T) {
	admin, err := pgx.ParseConfig(server().AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	// PostgreSQL itself knows no tokens; a password that looks like one will do,
	// and has to be allowed to be asked for as passwords are.
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: admin.Password, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	dsn := "host=" + quote(admin.Host) + " port=" + strconv.Itoa(int(admin.Port)) + " user=postgres sslmode=disable require_auth=password,scram-sha-256"
	db, _ := open(t, dsn, entrapg.WithCredential(credential))
	if user := sessionUser(t, db); user != "postgres" {
		t.Errorf("logged in as %q", user)
	}
}

func TestPlaintextOnLoopbackIsPossibleAndTheServersRefusalExplained(t *testing.T) {
	host, port, _ := net.SplitHostPort(server().Addr())
	db, _ := open(t, "host="+host+" port="+port+" sslmode=disable", entrapg.WithCredential(app(t, server())))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	if !errors.As(err, &login) || !strings.Contains(login.Hint, "TLS") {
		t.Errorf("got %v, want a LoginError that asks for TLS", err)
	}
}
