package roots

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
	text, err := os.ReadFile("testdata/ca.pem")
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

func TestRoots_CertFileIsRead(t *testing.T) {
	for path, valid := range map[string]bool{"testdata/ca.pem": true, write(t, "none.pem", []byte("none")): false, "missing": false, "": false} {
		if roots := readRoots(path); (roots != nil) != valid {
			t.Errorf("%q: %v", path, roots)
		}
	}
	for goos, ignores := range map[string]bool{"linux": false, "freebsd": false, "darwin": true, "windows": true} {
		if IgnoresCertFile(goos) != ignores {
			t.Error(goos)
		}
	}
}

func TestRoots_SSLCertFileReplacesSystemRoots(t *testing.T) {
	bundle := write(t, "bundle.pem", nil)
	t.Setenv("SSL_CERT_FILE", bundle)
	path, remove, err := File()
	if err != nil || path != bundle {
		t.Errorf("%q, %v", path, err)
	}
	remove()
	if !isFile(bundle) {
		t.Error("the user's file was removed")
	}
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
