package entrapgtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/entrapgtest"
)

func TestCAFile_IsSharedWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ca.pem")
	first := startFront(t, entrapgtest.Config{CAFile: path})
	if first.CAFile() != path || !strings.Contains(first.DSN(), "ca.pem") {
		t.Errorf("%s, %s", first.CAFile(), first.DSN())
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("%v: %v", err, info)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

func TestCAFile_OfAnEarlierServerIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ca.pem")
	first := startFront(t, entrapgtest.Config{CAFile: path})
	old := must[[]byte](t)(os.ReadFile(path))
	second := startFront(t, entrapgtest.Config{CAFile: path})
	if now := must[[]byte](t)(os.ReadFile(path)); string(now) == string(old) {
		t.Error("the file is that of the first server")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first server removed the file of the second one: %v", err)
	}
	second.Close()
}

func TestCAFile_KeepsOtherFiles(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "my key\n"} {
		path := filepath.Join(t.TempDir(), "own.pem")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := entrapgtest.Start(t.Context(), entrapgtest.Config{CAFile: path})
		var wrong *entrapgtest.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != "CAFile" || !strings.Contains(err.Error(), "already exists") {
			t.Errorf("%q: %v", content, err)
		}
		if now := must[[]byte](t)(os.ReadFile(path)); string(now) != content {
			t.Errorf("%q is now %q", content, now)
		}
	}
}

func TestCAFile_KeepsFilesBesideIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path+".new"); err != nil {
		t.Skip(err)
	}
	startFront(t, entrapgtest.Config{CAFile: path})
	if now := must[[]byte](t)(os.ReadFile(victim)); string(now) != "mine" {
		t.Errorf("the file is now %q", now)
	}
}
