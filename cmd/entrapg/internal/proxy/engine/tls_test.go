package engine_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
)

// newTLS returns a configuration with a certificate for 127.0.0.1, and the file
// of its authority.
func newTLS(t *testing.T) (config *tls.Config, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, caFile
}

func TestTLS_IsRequiredOfClients(t *testing.T) {
	s := server(t)
	config, caFile := newTLS(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password, TLS: config})
	for _, negotiation := range []string{"postgres", "direct"} {
		dsn := strings.Replace(p.dsn("sslnegotiation="+negotiation+" sslrootcert="+caFile), "sslmode=disable", "sslmode=verify-full", 1)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Errorf("%s: %v", negotiation, err)
			continue
		}
		if got := query(t, conn, "select md5(repeat('x', 1000000))"); got != "2e1ae1cb3c2e9b0ee8eedbb6e5af5f9b" && len(got) != 32 {
			t.Errorf("%s: %s", negotiation, got)
		}
		if got := query(t, conn, "select repeat('y', 1000000)"); got != strings.Repeat("y", 1000000) {
			t.Errorf("%s: %d bytes", negotiation, len(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := conn.PgConn().CancelRequest(ctx); err != nil {
			t.Errorf("%s: %v", negotiation, err)
		}
		cancel()
		conn.Close(t.Context())
	}
	if got := p.rejection(t, ""); got.Code != "28000" || !strings.Contains(got.Message, "TLS") {
		t.Errorf("plaintext is rejected with %+v", got)
	}
}

func TestTLS_ServesPsql(t *testing.T) {
	s := server(t)
	config, caFile := newTLS(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password, TLS: config})
	cmd := p.psql(t, "sslmode=verify-full sslrootcert="+caFile, "-c", "select 'in'")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("%s, error %v", out, err)
	}
}

// TestTLS_DataBeforeHandshakeIsRejected sends a startup message before TLS.
func TestTLS_DataBeforeHandshakeIsRejected(t *testing.T) {
	s := server(t)
	config, _ := newTLS(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u, TLS: config})
	client := dialWire(t, "tcp", p.addr.String())
	client.write([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f" + "\x00\x00\x00\x12\x00\x03\x00\x00user\x00eve\x00\x00"))
	answer := make([]byte, 1)
	if _, err := client.Read(answer); err != nil || answer[0] != 'S' {
		t.Fatalf("answer %q, error %v", answer, err)
	}
	for m := client.next(); m != ""; m = client.next() {
		if m[0] != 'E' || !strings.Contains(m, "received unencrypted data after SSL request") {
			t.Errorf("answered %q", m)
		}
	}
	if n := u.Stats().TokenRequests; n > 0 {
		t.Error("the client was logged in")
	}
}

func TestTLS_DirectNeedsALPN(t *testing.T) {
	s := server(t)
	config, _ := newTLS(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), TLS: config})
	for protocol, accepted := range map[string]bool{"postgresql": true, "http/1.1": false, "": false} {
		client := &tls.Config{InsecureSkipVerify: true}
		if protocol != "" {
			client.NextProtos = []string{protocol}
		}
		conn, err := tls.Dial("tcp", p.addr.String(), client)
		if err == nil {
			w := &wire{conn, t}
			conn.SetDeadline(time.Now().Add(time.Minute))
			_, err = conn.Write([]byte("\x00\x00\x00\x12\x00\x03\x00\x00user\x00eve\x00\x00"))
			if err == nil {
				_, err = w.Read(make([]byte, 1))
			}
			conn.Close()
		}
		if (err == nil) != accepted {
			t.Errorf("ALPN %q: error %v", protocol, err)
		}
	}
}
