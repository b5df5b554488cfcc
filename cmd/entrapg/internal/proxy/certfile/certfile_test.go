package certfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write writes a new certificate with a serial number, and its key.
func write(t *testing.T, certFile, keyFile string, serial int64, expires time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: expires.Add(-48 * time.Hour), NotAfter: expires}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		path  string
		block *pem.Block
	}{
		{certFile, &pem.Block{Type: "CERTIFICATE", Bytes: cert}},
		{keyFile, &pem.Block{Type: "PRIVATE KEY", Bytes: der}},
	} {
		if file.path == "" {
			continue
		}
		if err := os.WriteFile(file.path, pem.EncodeToMemory(file.block), 0o600); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Duration(serial) * time.Second) // independent of the file system's resolution
		if err := os.Chtimes(file.path, later, later); err != nil {
			t.Fatal(err)
		}
	}
}

// loaded writes and loads certificate 1. It returns a function that checks which
// certificate is served.
func loaded(t *testing.T, certFile, keyFile string, notAfter time.Time, log io.Writer) (serves func(serial int64)) {
	t.Helper()
	write(t, certFile, keyFile, 1, notAfter)
	p, err := Load(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return func(serial int64) {
		t.Helper()
		cert, err := p.GetCertificate(nil)
		if err != nil || cert.Leaf.SerialNumber.Int64() != serial {
			t.Errorf("serves certificate %v, %v; want %d", cert.Leaf.SerialNumber, err, serial)
		}
	}
}

func TestPair_ReadsFilesAgainWhenTheyChange(t *testing.T) {
	dir, tomorrow := t.TempDir(), time.Now().Add(24*time.Hour)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	var log bytes.Buffer
	serves := loaded(t, certFile, keyFile, tomorrow, &log)
	serves(1)
	serves(1)
	if log.Len() > 0 {
		t.Errorf("logged without a change: %s", &log)
	}
	write(t, certFile, "", 2, tomorrow) // without its key
	serves(1)
	serves(1)
	if n := strings.Count(log.String(), "the last one remains in use"); n != 1 {
		t.Errorf("an invalid certificate is logged %d times: %s", n, &log)
	}
	write(t, certFile, keyFile, 3, tomorrow)
	serves(3)
	if !strings.Contains(log.String(), "read a new TLS certificate") {
		t.Errorf("not logged: %s", &log)
	}
	log.Reset()
	if err := os.Chtimes(certFile, time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	serves(3)
	if got := log.String(); !strings.Contains(got, "it has not changed") || strings.Contains(got, "new") {
		t.Errorf("logged for the same certificate: %s", got)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	serves(3)
}

func TestLoad_RejectsUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write(t, file("a.crt"), file("a.key"), 1, time.Now().Add(time.Hour))
	write(t, file("b.crt"), file("b.key"), 1, time.Now().Add(time.Hour))
	write(t, file("old.crt"), file("old.key"), 1, time.Now().Add(-time.Hour))
	for _, test := range []struct{ cert, key, want string }{
		{"a.crt", "missing", "missing"},
		{"missing", "a.key", "missing"},
		{"a.crt", "b.key", "does not match"},
		{"a.key", "a.crt", "certificate"},
		{"old.crt", "old.key", "expired at"},
	} {
		if _, err := Load(file(test.cert), file(test.key), slog.Default()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %s: %v, want %q", test.cert, test.key, err, test.want)
		}
	}
}

func TestPair_ReadsFilesThatBecomeReadable(t *testing.T) {
	dir, tomorrow := t.TempDir(), time.Now().Add(24*time.Hour)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	var log bytes.Buffer
	serves := loaded(t, certFile, keyFile, tomorrow, &log)
	write(t, certFile, keyFile, 2, tomorrow)
	// Not even root can read a directory as a file.
	renewed := filepath.Join(dir, "renewed.key")
	if err := os.Rename(keyFile, renewed); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(keyFile, 0o700); err != nil {
		t.Fatal(err)
	}
	serves(1)
	serves(1)
	if n := strings.Count(log.String(), "the last one remains in use"); n != 1 {
		t.Errorf("a key that cannot be read is logged %d times: %s", n, &log)
	}
	info, err := os.Stat(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(keyFile), os.Rename(renewed, keyFile), os.Chtimes(keyFile, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	serves(2)
}

func TestPair_ReloadIgnoresTimes(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write(t, certFile, keyFile, 1, time.Now().Add(24*time.Hour))
	p, err := Load(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, keyFile, 2, time.Now().Add(24*time.Hour))
	p.tried = p.versions() // simulates an unchanged time and size
	if cert, _ := p.GetCertificate(nil); cert.Leaf.SerialNumber.Int64() != 1 {
		t.Fatal("the certificate is read without a change")
	}
	p.Reload()
	if cert, _ := p.GetCertificate(nil); cert.Leaf.SerialNumber.Int64() != 2 {
		t.Error("Reload does not read the certificate")
	}
}
