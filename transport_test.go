package entrapg_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// An impostor is somebody in the server's place who wants the token. It agrees
// to whatever gets it one: TLS with a certificate for name, or none.
type impostor struct {
	name     string // empty: answers that it has no TLS
	addr     string
	caFile   string // of the authority behind its certificate
	identity tls.Certificate

	mu   sync.Mutex
	seen bytes.Buffer // what was sent to it, decrypted where it could
}

func newImpostor(t *testing.T, name string) *impostor {
	t.Helper()
	i := &impostor{name: name}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	i.identity = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	i.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(i.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.addr = listener.Addr().String()
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				i.serve(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); sessions.Wait() })
	return i
}

func (i *impostor) serve(conn net.Conn) {
	request := make([]byte, 8)
	if _, err := io.ReadFull(conn, request); err != nil {
		return
	}
	i.Write(request)
	if bytes.Equal(request, []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}) { // SSLRequest
		if i.name == "" {
			conn.Write([]byte{'N'})
		} else {
			conn.Write([]byte{'S'})
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{i.identity}})
		}
	}
	// Whatever comes next, ask for the password.
	go func() {
		out, _ := (&pgproto3.AuthenticationCleartextPassword{}).Encode(nil)
		conn.Write(out)
	}()
	io.Copy(i, conn)
}

func (i *impostor) Write(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen.Write(b)
}

func (i *impostor) saw(token string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Contains(i.seen.String(), token)
}

// at routes a host to an address, as a spoofed DNS would.
func at(addr string) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	})
}

func TestImpostorGetsTheTokenOnlyWhereTheUserAskedForNoVerification(t *testing.T) {
	const other = "db.example.com"
	noTLS, selfSigned, otherName := newImpostor(t, ""), newImpostor(t, azureName), newImpostor(t, "elsewhere.example")
	for _, test := range []struct {
		impostor *impostor
		host     string
		settings string
		leaks    bool
	}{
		{noTLS, azureName, "", false},
		{noTLS, azureName, "sslmode=require", false},
		{noTLS, other, "", false},
		{noTLS, other, "sslmode=require", false},
		{noTLS, other, "sslmode=verify-ca", false},
		{noTLS, other, "sslmode=verify-full", false},
		{noTLS, other, "sslmode=prefer", false},
		{noTLS, other, "sslmode=allow", false},
		{noTLS, other, "sslmode=disable", false},

		{selfSigned, azureName, "", false},
		{selfSigned, azureName, "sslmode=require", false},
		{selfSigned, azureName, "sslmode=verify-ca", false},
		{selfSigned, azureName, "sslmode=verify-full", false},
		{selfSigned, azureName, "sslmode=prefer", false},
		{selfSigned, azureName, "sslmode=require sslnegotiation=postgres sslsni=0", false},
		{selfSigned, other, "", false},
		{selfSigned, other, "sslmode=verify-ca", false},
		{selfSigned, other, "sslmode=require", true}, // what require means

		// An authority that the user trusts, but a certificate for another name.
		{otherName, azureName, "sslmode=require sslrootcert=" + quote(otherName.caFile), false},
		{otherName, azureName, "sslmode=verify-ca sslrootcert=" + quote(otherName.caFile), false},
		{otherName, azureName, "sslmode=verify-full sslrootcert=" + quote(otherName.caFile), false},
		{otherName, other, "sslrootcert=" + quote(otherName.caFile), false},
		{otherName, other, "sslmode=verify-full sslrootcert=" + quote(otherName.caFile), false},
		{otherName, other, "sslmode=verify-ca sslrootcert=" + quote(otherName.caFile), true}, // what verify-ca means
	} {
		settings, _, _ := strings.Cut(test.settings, " sslrootcert")
		t.Run(fmt.Sprintf("certificate for %q, host %s, %s", test.impostor.name, test.host, settings), func(t *testing.T) {
			token := "canary." + rand.Text() + ".canary"
			credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
				return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			c := entrapg.NewConnector("host="+test.host+" user=app "+test.settings, entrapg.WithCredential(credential), at(test.impostor.addr))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if test.leaks {
				// The impostor keeps the client waiting once it has the token.
				go func() {
					for ctx.Err() == nil && !test.impostor.saw(token) {
						time.Sleep(time.Millisecond)
					}
					cancel()
				}()
			}
			if _, err := c.Connect(ctx); err == nil {
				t.Error("the impostor was taken for the server")
			} else if strings.Contains(err.Error(), token) {
				t.Error("the error shows the token")
			}
			if test.impostor.saw(token) != test.leaks {
				t.Errorf("the impostor saw the token: %v, want %v", !test.leaks, test.leaks)
			}
		})
	}
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
