package lockfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/entrapg/entrapg/internal/lockfile"
)

func TestOpen_SecondCallFailsUntilFirstFileIsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if _, err := lockfile.Open(path, 0, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	first, err := lockfile.Open(path, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.WriteString("content"); err != nil {
		t.Error(err)
	}
	if _, err := lockfile.Open(path, os.O_CREATE, 0o600); !errors.Is(err, lockfile.ErrLocked) {
		t.Errorf("second call: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
		t.Errorf("readers get %q, %v", b, err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := lockfile.Open(path, os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("existing file: %v", err)
	}
	again, err := lockfile.Open(path, os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
