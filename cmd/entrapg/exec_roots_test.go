package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRoots_WrittenFileIsReadAndRemoved(t *testing.T) {
	text, err := os.ReadFile(azureServer(t).CAFile())
	if err != nil {
		t.Fatal(err)
	}
	temporary := func(dir string) {
		t.Setenv("TMPDIR", dir)
		t.Setenv("TMP", dir) // Windows
	}
	temporary(t.TempDir())
	block, _ := pem.Decode(text)
	path, remove, err := writeRoots([][]byte{block.Bytes, block.Bytes})
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, got := x509.NewCertPool(), x509.NewCertPool()
	if !want.AppendCertsFromPEM(text) || !got.AppendCertsFromPEM(written) || !got.Equal(want) {
		t.Errorf("%s", written)
	}
	remove()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}

	temporary(filepath.Join(t.TempDir(), "missing"))
	if _, _, err := writeRoots(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory for temporary files: %v", err)
	}
}

func TestRoots_SSLCertFileReplacesSystemRoots(t *testing.T) {
	_, env := identityWith(t, azureServer(t), "roots", true)
	needsCAVariable(t, env)
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", bundle)
	path, remove, err := rootsFile()
	if err != nil || path != bundle {
		t.Errorf("%q, %v", path, err)
	}
	remove()
	if !isFile(bundle) {
		t.Error("the user's file was removed")
	}
	// The server's certificate is not verified by sslrootcert, but by SSL_CERT_FILE.
	s := azureServer(t)
	r := runAs(t, append(env, "SSL_CERT_FILE="+s.CAFile()), "exec", "host=localhost port="+portOf(t, s)+" dbname=postgres sslrootcert=system",
		"--", installed(t, "psql"), "-XAtc", "select session_user")
	if r.code != 0 || r.stdout != "roots\n" {
		t.Errorf("%+v", r)
	}
}
