package entrapgtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServer_FindsPostgresOnPathThenNewestVersion(t *testing.T) {
	root := t.TempDir()
	install := func(dir string) string {
		dir = filepath.Join(root, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"initdb", "postgres"} {
			if err := os.WriteFile(filepath.Join(dir, program(name)), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	usual := installDirs
	defer func() { installDirs = usual }()
	installDirs = []string{filepath.Join(root, "lib", "*", "bin")}
	t.Setenv("ENTRAPG_POSTGRES_BIN", "")
	t.Setenv("PATH", filepath.Join(root, "path"))

	if dir, err := findPostgres(); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") ||
		!strings.Contains(err.Error(), "brew install postgresql") {
		t.Errorf("found %q, error %v; want an error that says how to install it", dir, err)
	}
	install("lib/9/bin")
	newest := install("lib/18/bin")
	install("lib/9.6/bin")
	if dir, err := findPostgres(); err != nil || dir != newest {
		t.Errorf("found %q, error %v, want %q", dir, err, newest)
	}
	onPath := install("path")
	if dir, err := findPostgres(); err != nil || dir != onPath {
		t.Errorf("found %q, error %v, want %q", dir, err, onPath)
	}
	chosen := install("chosen")
	t.Setenv("ENTRAPG_POSTGRES_BIN", chosen)
	if dir, err := findPostgres(); err != nil || dir != chosen {
		t.Errorf("found %q, error %v, want %q", dir, err, chosen)
	}
}
