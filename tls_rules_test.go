package entrapg_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

const (
	azureOther   = "other.postgres.database.azure.com"
	azureWriter  = "shop.writer.postgres.database.azure.com" // a virtual endpoint
	azureGov     = "shop.postgres.database.usgovcloudapi.net"
	contosoName  = "db.contoso.com" // a CNAME for azureName, or a server outside Azure
	foreignName  = "elsewhere.example"
	systemRoots  = "system"
	settingRoots = "sslrootcert"
)

// tokenOf is a credential that has one token for everything.
func tokenOf(token string) credentialFunc {
	return func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
	}
}

// An authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &authority{certificate, key}
}

// issue returns a server certificate for DNS names.
func (a *authority) issue(names ...string) tls.Certificate {
	return a.sign(&x509.Certificate{DNSNames: names})
}

func (a *authority) sign(template *x509.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template.SerialNumber = big.NewInt(2)
	template.NotBefore, template.NotAfter = a.certificate.NotBefore, a.certificate.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// file writes the authority's own certificate to a file for sslrootcert.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func (a *authority) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// systemAuthority is the only authority among the system's roots, on every
// operating system, from its first use until the process ends. Certificates of
// other authorities fail as they would with the real roots.
var systemAuthority = sync.OnceValue(func() *authority {
	a := newAuthority()
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	const variable = "GODEBUG"
	old, set := os.LookupEnv(variable)
	os.Setenv(variable, strings.TrimPrefix(old+",x509usefallbackroots=1", ","))
	x509.SetFallbackRoots(roots)
	if os.Setenv(variable, old); !set {
		os.Unsetenv(variable)
	}
	return a
})

// A tlsServer is a pipeServer that offers TLS, and records how far its clients get.
type tlsServer struct {
	pipeServer
	identity tls.Certificate
	peer     net.Addr // that clients see; nil for the real one, which is loopback

	dialed atomic.Bool
	heard  atomic.Bool // if the server got more than the request for TLS and the handshake
}

func (s *tlsServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.dialed.Store(true)
	// TLS needs a buffer that net.Pipe does not have: both sides may write at once.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	client, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	server, err := listener.Accept()
	if err != nil {
		client.Close()
		return nil, err
	}
	go s.accept(server)
	if s.peer != nil {
		return &connFrom{client, s.peer}, nil
	}
	return client, nil
}

func (s *tlsServer) accept(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	head, err := r.Peek(8)
	if err != nil {
		return
	}
	conn = &readConn{conn, r}
	if string(head[4:]) == "\x04\xd2\x16\x2f" { // SSLRequest
		if _, err := r.Discard(8); err != nil {
			return
		}
		if _, err := conn.Write([]byte{'S'}); err != nil {
			return
		}
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{s.identity}})
	}
	s.serve(&readConn{conn, readRecorder{conn, &s.heard}})
}

// options route all hosts of a connector to the server.
func (s *tlsServer) options() entrapg.Option { return routed(s.dial) }

func routed(dial pgconn.DialFunc) entrapg.Option {
	return entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil }
		config.DialFunc = dial
	})
}

// sawNothing fails the test if the server got more than a handshake.
func (s *tlsServer) sawNothing(t *testing.T) {
	t.Helper()
	if tokens := s.passwords(); len(tokens) > 0 {
		t.Errorf("the server got the token: %q", tokens)
	} else if s.heard.Load() {
		t.Error("the server got the startup message")
	}
}

// connFrom is a connection that reports peer as its remote address.
type connFrom struct {
	net.Conn
	peer net.Addr
}

func (c *connFrom) RemoteAddr() net.Addr { return c.peer }

// readConn is a connection that is read through a reader.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// readRecorder records that something was read.
type readRecorder struct {
	io.Reader
	heard *atomic.Bool
}

func (h readRecorder) Read(b []byte) (int, error) {
	n, err := h.Reader.Read(b)
	if n > 0 {
		h.heard.Store(true)
	}
	return n, err
}

// reach logs in to s and returns the outcome: "in" for success, "config" for a
// ConfigError before dialing, or what the server had received at the error:
// "TOKEN", "user", "hello" (only the ClientHello of TLS) or "-" (nothing).
func reach(t *testing.T, dsn string, s *tlsServer, opts ...entrapg.Option) string {
	t.Helper()
	if !strings.Contains(dsn, "entra_credential=none") {
		opts = append(opts, entrapg.WithCredential(&numbered{life: time.Hour}))
	}
	c := entrapg.NewConnector(dsn+" user=app", append(opts, s.options())...)
	defer c.Close()
	err := connect(t, c)
	var config *entrapg.ConfigError
	switch {
	case err == nil && len(s.passwords()) != 1:
		t.Errorf("%s: logged in with passwords %q", dsn, s.passwords())
		fallthrough
	case err == nil:
		return "in"
	case len(s.passwords()) > 0:
		return "TOKEN"
	case s.heard.Load():
		return "user"
	case s.dialed.Load():
		return "hello"
	case errors.As(err, &config) && config.Setting == "sslmode":
		return "config"
	default:
		return "-"
	}
}

// TestTLS_SSLModeDeterminesWhichServersGetToken has a row for each kind of host,
// sslmode and roots. The columns are the server's certificate: for the host, for
// another Azure name of the same cloud, for an Azure name of another cloud, for a
// foreign name, and for the host but signed by an unknown authority or by roots
// that are not in effect.
func TestTLS_SSLModeDeterminesWhichServersGetToken(t *testing.T) {
	t.Parallel()
	file := newAuthority()
	path := file.file(t)
	authorities := map[string]*authority{systemRoots: systemAuthority(), settingRoots: file}
	others := map[string]*authority{systemRoots: file, settingRoots: systemAuthority()}
	unknown := newAuthority()

	var out strings.Builder
	for _, host := range []string{azureName, contosoName} {
		for _, sslmode := range []string{"", "verify-full", "verify-ca", "require", "disable"} {
			for _, roots := range []string{systemRoots, settingRoots} {
				dsn := "host=" + host
				if sslmode != "" {
					dsn += " sslmode=" + sslmode
				}
				if roots == settingRoots {
					dsn += " sslrootcert=" + quote(path)
				}
				kind := map[string]string{azureName: "Azure", contosoName: "other"}[host]
				fmt.Fprintf(&out, "%-5s %-11s %-11s", kind, sslmode, roots)
				valid := authorities[roots]
				for _, identity := range []tls.Certificate{
					valid.issue(host), valid.issue(azureOther), valid.issue(azureGov), valid.issue(foreignName),
					unknown.issue(host), others[roots].issue(host),
				} {
					fmt.Fprintf(&out, " %-7s", reach(t, dsn, &tlsServer{identity: identity}))
				}
				out.WriteString("\n")
			}
		}
	}
	compare(t, out.String(), `
host  sslmode     roots       host    Azure   cloud   foreign unknown swapped
Azure             system      in      hello   hello   hello   hello   hello
Azure             sslrootcert in      hello   hello   hello   hello   hello
Azure verify-full system      in      hello   hello   hello   hello   hello
Azure verify-full sslrootcert in      hello   hello   hello   hello   hello
Azure verify-ca   system      in      in      hello   hello   hello   hello
Azure verify-ca   sslrootcert in      in      hello   hello   hello   hello
Azure require     system      in      hello   hello   hello   hello   hello
Azure require     sslrootcert in      hello   hello   hello   hello   hello
Azure disable     system      config  config  config  config  config  config
Azure disable     sslrootcert config  config  config  config  config  config
other             system      in      hello   hello   hello   hello   hello
other             sslrootcert in      hello   hello   hello   hello   hello
other verify-full system      in      hello   hello   hello   hello   hello
other verify-full sslrootcert in      hello   hello   hello   hello   hello
other verify-ca   system      in      in      in      hello   hello   hello
other verify-ca   sslrootcert in      in      in      in      hello   hello
other require     system      in      in      in      hello   hello   hello
other require     sslrootcert in      in      in      in      hello   hello
other disable     system      config  config  config  config  config  config
other disable     sslrootcert config  config  config  config  config  config
`)
}

func TestTLS_AliasOfAzureServerWorksUnderRequire(t *testing.T) {
	for _, sslmode := range []string{"require", "verify-ca"} {
		dsn := "host=" + contosoName + " sslmode=" + sslmode
		for _, names := range [][]string{
			{azureName},
			{"*.postgres.database.azure.com"},
			{"cluster.internal.example", azureName},
		} {
			if got := reach(t, dsn, &tlsServer{identity: systemAuthority().issue(names...)}); got != "in" {
				t.Errorf("%s, certificate for %q: %s, want in", dsn, names, got)
			}
		}
		for _, names := range [][]string{
			{azureName + "." + foreignName},
			{"shoppostgres.database.azure.com"},
			{"postgres.database.azure.com"},
			{"*.database.azure.com"},
			{"*.azure.com"},
			{"shop.database.windows.net"},
		} {
			if got := reach(t, dsn, &tlsServer{identity: systemAuthority().issue(names...)}); got != "hello" {
				t.Errorf("%s, certificate for %q: %s, want hello", dsn, names, got)
			}
		}
		// The common name of the subject is ignored.
		identity := systemAuthority().sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: azureName}, DNSNames: []string{foreignName},
		})
		if got := reach(t, dsn, &tlsServer{identity: identity}); got != "hello" {
			t.Errorf("%s, certificate with the common name %s: %s, want hello", dsn, azureName, got)
		}
	}
}

func TestTLS_ImpostorOfAliasSeesOnlyClientHello(t *testing.T) {
	const token = "canary.canary.canary"
	credential := tokenOf(token)
	for _, sslmode := range []string{"", "verify-full", "verify-ca", "require"} {
		for _, names := range [][]string{{contosoName}, {azureName}, {contosoName, azureName}, {foreignName}} {
			dsn := "host=" + contosoName + " user=app"
			if sslmode != "" {
				dsn += " sslmode=" + sslmode
			}
			i := newImpostor(t, attack{tls: "S", names: names, reply: cleartextRequest})
			c := entrapg.NewConnector(dsn, entrapg.WithCredential(credential), i.option())
			if err := connect(t, c); err == nil {
				t.Errorf("%s, certificate for %q: the impostor was accepted", dsn, names)
			}
			if saw := i.saw(token); saw != "hello" {
				t.Errorf("%s, certificate for %q: the impostor saw %s, want hello", dsn, names, saw)
			}
			c.Close()
		}
	}
}

func TestTLS_ServerNameCanBeAnotherAzureName(t *testing.T) {
	all := []string{"", "verify-full", "require", "verify-ca"}
	const evil = azureName + "." + foreignName
	for _, test := range []struct {
		host, serverName, certificate string
		sslmodes                      []string
		want                          string
	}{
		{azureWriter, azureName, azureName, all, "in"},
		{azureWriter, azureName + ".", azureName, all, "in"},
		{azureWriter, strings.ToUpper(azureName), azureName, all, "in"},
		{azureWriter, azureName, azureOther, all[:3], "hello"},
		{azureWriter, azureName, azureWriter, all[:3], "hello"},
		{azureWriter, azureName, foreignName, all, "hello"},
		{azureWriter, "", azureName, all[:3], "hello"},
		{azureWriter, "", azureName, all[3:], "in"},
		{azureName, foreignName, foreignName, all, "hello"},
		{azureName, contosoName, contosoName, all, "hello"},
		{azureName, "127.0.0.1", foreignName, all, "hello"},
		{azureName, evil, evil, all, "hello"},
		{contosoName, azureName, azureName, all[:2], "in"},
		{contosoName, foreignName, foreignName, all[:2], "in"},
		{contosoName, foreignName, contosoName, all[:2], "hello"},
	} {
		for _, sslmode := range test.sslmodes {
			dsn := "host=" + test.host
			if sslmode != "" {
				dsn += " sslmode=" + sslmode
			}
			named := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
				if test.serverName != "" {
					c.TLSConfig = c.TLSConfig.Clone()
					c.TLSConfig.ServerName = test.serverName
				}
			})
			s := &tlsServer{identity: systemAuthority().issue(test.certificate)}
			if got := reach(t, dsn, s, named); got != test.want {
				t.Errorf("%s, ServerName %q, certificate for %s: %s, want %s",
					dsn, test.serverName, test.certificate, got, test.want)
			}
		}
	}
}

const (
	azureDSN   = "host=" + azureName
	contosoDSN = "host=" + contosoName
)

// hostHook is a stdlib.OptionBeforeConnect, which runs after the configuration has been checked.
type hostHook func(*pgx.ConnConfig)

func (h hostHook) option() entrapg.Option {
	return entrapg.WithStdlib(stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		h(c)
		return nil
	}))
}

func TestTLS_HookThatUndoesRulesCannotLeakToken(t *testing.T) {
	valid, unknown := systemAuthority(), newAuthority()
	noTLS := func(c *pgx.ConnConfig) { c.TLSConfig = nil }
	insecure := func(c *pgx.ConnConfig) { c.TLSConfig = &tls.Config{InsecureSkipVerify: true} }
	insecureClone := func(c *pgx.ConnConfig) {
		c.TLSConfig = c.TLSConfig.Clone()
		c.TLSConfig.InsecureSkipVerify = true
	}
	renamed := func(name string) hostHook { return func(c *pgx.ConnConfig) { c.Host = name } }
	for _, test := range []struct {
		name, dsn string
		hook      hostHook
		identity  tls.Certificate
	}{
		{"no TLS, Azure", azureDSN, noTLS, valid.issue(azureName)},
		{"no TLS, Azure under require", azureDSN + " sslmode=require", noTLS, valid.issue(azureName)},
		{"no TLS, elsewhere", contosoDSN, noTLS, valid.issue(contosoName)},
		{"no TLS, elsewhere under require", contosoDSN + " sslmode=require", noTLS, valid.issue(contosoName)},
		{"no TLS for a fallback", "host=" + azureName + "," + contosoName, func(c *pgx.ConnConfig) {
			fallback := *c.Fallbacks[0]
			fallback.TLSConfig = nil
			c.Host, c.Fallbacks = azureOther, []*pgconn.FallbackConfig{&fallback}
		}, valid.issue(azureName, contosoName)},
		{"no TLS without disable, loopback", "host=127.0.0.1", noTLS, valid.issue(contosoName)},
		{
			"Azure's host under require", contosoDSN + " sslmode=require", renamed(azureName),
			unknown.issue(azureName, contosoName),
		},
		{
			"Azure's host under require, dots", contosoDSN + " sslmode=require", renamed(azureName + ".."),
			unknown.issue(azureName),
		},
		{
			"Azure's host, another's certificate", contosoDSN + " sslmode=require", renamed(azureName),
			valid.issue(azureOther),
		},
		{
			"Azure's host, the old host's certificate", contosoDSN + " sslmode=verify-full", renamed(azureName),
			valid.issue(contosoName),
		},
		{
			"another host under disable", "host=127.0.0.1 sslmode=disable", renamed(contosoName),
			valid.issue(contosoName),
		},
		{"InsecureSkipVerify, Azure", azureDSN, insecure, unknown.issue(azureName)},
		{
			"InsecureSkipVerify, Azure under require", azureDSN + " sslmode=require", insecureClone,
			unknown.issue(azureName),
		},
		{
			"InsecureSkipVerify, Azure under verify-ca", azureDSN + " sslmode=verify-ca", insecure,
			unknown.issue(azureName),
		},
		{"InsecureSkipVerify, elsewhere", contosoDSN, insecureClone, unknown.issue(contosoName)},
		{
			"InsecureSkipVerify, elsewhere under verify-ca", contosoDSN + " sslmode=verify-ca", insecure,
			unknown.issue(contosoName),
		},
		{
			"InsecureSkipVerify, elsewhere under require", contosoDSN + " sslmode=require", insecure,
			unknown.issue(contosoName),
		},
		{"a foreign ServerName, Azure", azureDSN, func(c *pgx.ConnConfig) {
			c.TLSConfig = c.TLSConfig.Clone()
			c.TLSConfig.ServerName = foreignName
		}, valid.issue(foreignName)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &tlsServer{identity: test.identity, peer: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}}
			if strings.HasSuffix(test.name, "loopback") {
				s.peer = nil
			}
			if got := reach(t, test.dsn, s, test.hook.option()); got == "in" {
				t.Error("the login succeeded")
			}
			s.sawNothing(t)
		})
	}
}

// acquire opens a connection of a pool, and returns its error.
func acquire(t *testing.T, config *pgxpool.Config) error {
	t.Helper()
	conn, err := newPool(t, config).Acquire(t.Context())
	if err == nil {
		conn.Release()
	}
	return err
}

func TestTLS_PoolHookThatUndoesRulesCannotLeakToken(t *testing.T) {
	unknown := newAuthority()
	insecure := func(c *pgx.ConnConfig) { c.TLSConfig = &tls.Config{InsecureSkipVerify: true} }
	renamed := func(c *pgx.ConnConfig) { c.Host = azureName }
	for name, test := range map[string]struct {
		dsn  string
		hook hostHook
	}{
		"no TLS":                           {azureDSN, func(c *pgx.ConnConfig) { c.TLSConfig = nil }},
		"InsecureSkipVerify":               {azureDSN, insecure},
		"InsecureSkipVerify under require": {contosoDSN + " sslmode=require", insecure},
		"Azure's host under require":       {contosoDSN + " sslmode=require", renamed},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tlsServer{identity: unknown.issue(azureName, contosoName)}
			config := poolConfig(t, test.dsn+" user=app", s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
			before := config.BeforeConnect
			config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
				err := before(ctx, c)
				test.hook(c)
				return err
			}
			if acquire(t, config) == nil {
				t.Error("the login succeeded")
			}
			s.sawNothing(t)
		})
	}
}

func TestTLS_PlaintextIsOnlyForThisMachine(t *testing.T) {
	for _, test := range []struct {
		host, peer string
		want       string
	}{
		{"localhost", "127.0.0.1", "in"},
		{"LOCALHOST.", "127.0.0.53", "in"},
		{"localhost", "::1", "in"},
		{"localhost", "::ffff:127.0.0.1", "in"},
		{"::1", "::1", "in"},
		{"127.0.0.1", "127.0.0.1", "in"},
		{"localhost", "192.0.2.1", "hello"},
		{"localhost", "10.0.0.7", "hello"},
		{"localhost", "2001:db8::1", "hello"},
		{"localhost", "::ffff:192.0.2.1", "hello"},
		{"localhost", "0.0.0.0", "hello"},
		{"127.0.0.1", "192.0.2.1", "hello"},
		{"::1", "2001:db8::1", "hello"},
	} {
		for _, peer := range []net.Addr{
			&net.TCPAddr{IP: net.ParseIP(test.peer), Port: 5432},
			addrText(net.JoinHostPort(test.peer, "5432")), // of a dialer that has its own type of addresses
		} {
			dsn := "host=" + test.host + " sslmode=disable"
			s := &tlsServer{peer: peer}
			if got := reach(t, dsn, s); got != test.want {
				t.Errorf("%s resolved to %v (%T): %s, want %s", dsn, peer, peer, got, test.want)
			}
			config := poolConfig(t, dsn+" user=app", s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
			if err := acquire(t, config); (err == nil) != (test.want == "in") {
				t.Errorf("pgxpool: %s resolved to %v (%T): %v", dsn, peer, peer, err)
			}
			if test.want != "in" {
				s.sawNothing(t)
			}
		}
	}
}

// addrText is a TCP address that is not of a type of package net.
type addrText string

func (addrText) Network() string  { return "tcp" }
func (a addrText) String() string { return string(a) }

// plaintextThenTLS sets localhost, without TLS, and then a fallback with TLS. All
// connections are to s, which is not on this machine, and made by dial.
func plaintextThenTLS(s *tlsServer, dial pgconn.DialFunc, opts ...entrapg.Option) *entrapg.Connector {
	ca := newAuthority()
	s.identity, s.peer = ca.issue(contosoName), &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 5432}
	adjust := entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
		config.DialFunc = dial
		config.Fallbacks = []*pgconn.FallbackConfig{
			{Host: contosoName, Port: 5432, TLSConfig: &tls.Config{RootCAs: ca.pool(), ServerName: contosoName}},
		}
	})
	opts = append([]entrapg.Option{adjust, entrapg.WithCredential(&numbered{life: time.Hour})}, opts...)
	return entrapg.NewConnector("host=localhost user=app sslmode=disable", opts...)
}

func TestTLS_VerifiedFallbackOfPlaintextHostIsAccepted(t *testing.T) {
	for name, option := range map[string]entrapg.Option{
		"by name": nil,
		"by the policy's function": entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
			config.Fallbacks[0].TLSConfig.ServerName = "" // then other names are accepted too
		}),
	} {
		t.Run(name, func(t *testing.T) {
			s := &tlsServer{}
			c := plaintextThenTLS(s, func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "localhost") {
					return nil, errors.New("localhost is down")
				}
				return s.dial(ctx, network, address)
			}, option)
			mustConnect(t, c)
		})
	}
}

// overTLS returns a DialFunc that requests TLS and does not verify the server.
func overTLS(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil || !strings.HasPrefix(address, "localhost") {
			return nil, errors.New("the fallback is down")
		}
		if _, err := conn.Write([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f")); err != nil { // SSLRequest
			return nil, err
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return nil, err
		}
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil
	}
}

func TestTLS_UnverifiedTLSOfDialFuncIsPlaintext(t *testing.T) {
	for name, connector := range map[string]func(*tlsServer) *entrapg.Connector{
		"of the program": func(s *tlsServer) *entrapg.Connector { return plaintextThenTLS(s, overTLS(s.dial)) },
		"of a hook": func(s *tlsServer) *entrapg.Connector {
			hook := func(_ context.Context, config *pgx.ConnConfig) error {
				config.DialFunc = overTLS(config.DialFunc)
				return nil
			}
			return plaintextThenTLS(s, s.dial, entrapg.WithStdlib(stdlib.OptionBeforeConnect(hook)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tlsServer{}
			c := connector(s)
			s.identity = newAuthority().issue(contosoName)
			var invalid *entrapg.ConfigError
			if err := connect(t, c); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "; use sslmode=verify-full") {
				t.Errorf("got %v, want a ConfigError with a fix", err)
			}
			s.sawNothing(t)
		})
	}
}

func TestTLS_HostOrderCanBeRandomizedByHook(t *testing.T) {
	t.Parallel()
	hosts := []string{azureName, azureOther, contosoName}
	servers := map[string]*tlsServer{}
	for _, host := range hosts {
		servers[host] = &tlsServer{identity: systemAuthority().issue(host)}
	}
	for _, sslmode := range []string{"verify-full", "require"} {
		var first []string
		c := entrapg.NewConnector("host="+strings.Join(hosts, ",")+" user=app sslmode="+sslmode,
			entrapg.WithCredential(&numbered{life: time.Hour}),
			entrapg.WithStdlib(stdlib.OptionBeforeConnect(stdlib.RandomizeHostOrderFunc)),
			entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
				config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
				config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
					host, _, err := net.SplitHostPort(address)
					if err != nil {
						return nil, err
					}
					first = append(first, host)
					return servers[host].dial(ctx, network, address)
				}
			}))
		const connects = 60 // all of which would miss a host once in 10^10 runs
		for range connects {
			mustConnect(t, c)
		}
		c.Close()
		dialed := map[string]int{}
		for _, host := range first {
			dialed[host]++
		}
		if len(first) != connects || len(dialed) != len(hosts) {
			t.Errorf("sslmode=%s: %d connects dialed %v, want one dial each, of every host", sslmode, connects, dialed)
		}
	}
}

func TestTLS_InvalidHostIsConfigError(t *testing.T) {
	for name, host := range map[string]string{
		"two trailing dots":       azureName + "..",
		"trailing space":          azureName + " ",
		"leading space":           " " + azureName,
		"newline":                 azureName + "\n",
		"space inside":            "db example.com",
		"full-width dots":         "shop．postgres．database．azure．com",
		"one full-width dot":      "shop.postgres.database.azure．com",
		"ideographic full stop":   "shop.postgres.database.azure\u3002com",
		"full-width letters":      "ｓｈｏｐ.postgres.database.azure.com",
		"Kelvin sign":             "bac\u212aend.postgres.database.azure.com",
		"long s":                  "shop.po\u017ftgres.database.azure.com",
		"dotted capital I":        "\u0130.postgres.database.azure.com",
		"umlaut":                  "münchen.example.com",
		"soft hyphen":             "shop.post\u00adgres.database.azure.com",
		"zero-width space":        "shop.postgres.database.azure.com\u200b",
		"invalid UTF-8":           "shop\xff.postgres.database.azure.com",
		"empty label":             "shop..postgres.database.azure.com",
		"leading dot":             ".postgres.database.azure.com",
		"a dot alone":             ".",
		"long label":              strings.Repeat("a", 64) + ".postgres.database.azure.com",
		"control character":       "shop\x01.postgres.database.azure.com",
		"delete":                  "shop\x7f.postgres.database.azure.com",
		"port":                    "db.example.com:5432",
		"path":                    "db.example.com/shop",
		"user":                    "app@db.example.com",
		"percent escape":          "db%2eexample.com",
		"brackets":                "[::1]",
		"address with two dots":   "127.0.0.1..",
		"localhost with two dots": "localhost..",
	} {
		withHost := func(set func(*pgx.ConnConfig)) entrapg.Option { return entrapg.WithConnConfig(set) }
		credential := entrapg.WithCredential(&numbered{life: time.Hour})
		pool := func(dsn string, opts ...entrapg.Option) error {
			_, err := entrapg.PoolConfig(dsn, append(opts, credential)...)
			return err
		}
		ways := map[string]func(t *testing.T) error{
			"DSN":           func(*testing.T) error { return pool("user=app host=" + quote(host)) },
			"DSN, require":  func(*testing.T) error { return pool("sslmode=require user=app host=" + quote(host)) },
			"DSN, disable":  func(*testing.T) error { return pool("sslmode=disable user=app host=" + quote(host)) },
			"second of DSN": func(*testing.T) error { return pool("user=app host=" + quote("db.example.org,"+host)) },
			"URL's query":   func(*testing.T) error { return pool("postgres://app@/?host=" + url.QueryEscape(host)) },
			"PGHOST": func(t *testing.T) error {
				t.Setenv("PGHOST", host)
				return pool("user=app")
			},
			"WithConnConfig": func(*testing.T) error {
				return pool("host=db.example.org user=app", withHost(func(c *pgx.ConnConfig) { c.Host = host }))
			},
			"fallback of WithConnConfig": func(*testing.T) error {
				return pool("host=db.example.org user=app", withHost(func(c *pgx.ConnConfig) {
					c.Fallbacks = append(c.Fallbacks, &pgconn.FallbackConfig{Host: host, Port: 5432, TLSConfig: c.TLSConfig})
				}))
			},
			"Connector": func(t *testing.T) error {
				s := &tlsServer{identity: systemAuthority().issue(azureName)}
				err := connect(t, entrapg.NewConnector("user=app host="+quote(host), credential, s.options()))
				if s.dialed.Load() {
					t.Errorf("%q was dialed", host)
				}
				return err
			},
		}
		if u := "postgres://app@" + host + "/shop"; !strings.ContainsAny(host, ":/@[") {
			if _, err := url.Parse(u); err == nil {
				ways["URL"] = func(*testing.T) error { return pool(u) }
			}
		}
		for way, try := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				var config *entrapg.ConfigError
				if err := try(t); !errors.As(err, &config) || config.Setting != "host" {
					t.Errorf("%q: got %v, want a ConfigError for host", host, err)
				}
			})
		}
	}
}

func TestTLS_ValidHostIsAccepted(t *testing.T) {
	for _, host := range []string{
		"db", "db.example.com", "db.example.com.", "DB.Example.COM", "my_db", "_db._tcp.example.com",
		"1password.example.com", "a-b--c.example.com", "xn--mnchen-3ya.example.com",
		strings.Repeat("a", 63) + ".example.com", azureName, azureName + ".", strings.ToUpper(azureName), azureWriter,
		"192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1",
	} {
		if _, err := entrapg.PoolConfig("user=app host=" + quote(host)); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, host := range []string{
		"/run/postgresql", "/tmp/a b/münchen", "localhost", "localhost.", "127.0.0.1", "::1",
	} {
		if _, err := entrapg.PoolConfig("user=app sslmode=disable host=" + quote(host)); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	// One trailing dot means the same host, for the certificate too.
	for _, sslmode := range []string{"verify-full", "verify-ca", "require"} {
		s := &tlsServer{identity: systemAuthority().issue(azureName)}
		if got := reach(t, "host="+azureName+". sslmode="+sslmode, s); got != "in" {
			t.Errorf("%s. under sslmode=%s: %s, want in", azureName, sslmode, got)
		}
	}
}

func TestTLS_SSLModesWithoutEntraAreThoseOfPgx(t *testing.T) {
	unknown := newAuthority()
	ca := " sslrootcert=" + quote(unknown.file(t))
	elsewhere := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}
	for _, test := range []struct {
		dsn    string
		server *tlsServer
		want   string
	}{
		{"host=" + contosoName + " sslmode=require", &tlsServer{identity: unknown.issue(contosoName)}, "in"},
		{"host=" + contosoName + " sslmode=require", &tlsServer{identity: unknown.issue(foreignName)}, "in"},
		{"host=" + contosoName + " sslmode=require" + ca, &tlsServer{identity: unknown.issue(foreignName)}, "in"},
		{"host=" + contosoName + " sslmode=verify-ca" + ca, &tlsServer{identity: unknown.issue(foreignName)}, "in"},
		{"host=" + contosoName + " sslmode=verify-ca", &tlsServer{identity: systemAuthority().issue(foreignName)}, "in"},
		{"host=" + contosoName + " sslmode=verify-ca", &tlsServer{identity: unknown.issue(contosoName)}, "hello"},
		{"host=" + contosoName + " sslmode=verify-full" + ca, &tlsServer{identity: unknown.issue(foreignName)}, "hello"},
		{"host=" + contosoName, &tlsServer{identity: systemAuthority().issue(foreignName)}, "hello"},
		{"host=localhost sslmode=disable", &tlsServer{peer: elsewhere}, "in"},
		{"host=postgres sslmode=disable", &tlsServer{peer: elsewhere}, "in"},
	} {
		test.server.setReject(func(password string) *pgproto3.ErrorResponse {
			if password != "hunter2" {
				return rejectEveryLogin(password)
			}
			return nil
		})
		if got := reach(t, test.dsn+" entra_credential=none password=hunter2", test.server); got != test.want {
			t.Errorf("%s: %s, want %s", test.dsn, got, test.want)
		}
	}
}

func TestTLS_ExistingStrictConfigurationStaysStrict(t *testing.T) {
	authority, foreign := newAuthority(), newAuthority()
	file := authority.file(t)
	for _, sslmode := range []string{"require", "verify-ca"} {
		for _, test := range []struct {
			name     string
			config   func(*tls.Config) *tls.Config
			identity tls.Certificate
			want     bool
		}{
			{"sslrootcert alone", nil, authority.issue(foreignName), true},
			{"a strict configuration", func(*tls.Config) *tls.Config {
				return &tls.Config{ServerName: contosoName, RootCAs: authority.pool()}
			}, authority.issue(foreignName), false},
			{"a strict configuration, its name", func(*tls.Config) *tls.Config {
				return &tls.Config{ServerName: contosoName, RootCAs: authority.pool()}
			}, authority.issue(contosoName), true},
			{"other roots", func(c *tls.Config) *tls.Config {
				c.RootCAs = foreign.pool()
				return c
			}, foreign.issue(foreignName), false},
			{"other roots, its name", func(c *tls.Config) *tls.Config {
				c.RootCAs = foreign.pool()
				return c
			}, foreign.issue(contosoName), true},
		} {
			config := parse(t, "host="+contosoName+" user=app sslmode="+sslmode+" sslrootcert="+quote(file))
			if test.config != nil {
				config.TLSConfig = test.config(config.TLSConfig)
			}
			s := &tlsServer{identity: test.identity}
			c := entrapg.NewConnectorWithConfig(config, s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
			if err := connect(t, c); (err == nil) != test.want {
				t.Errorf("%s, %s: got %v, want accepted %t", sslmode, test.name, err, test.want)
			}
			c.Close()
		}
	}
}
