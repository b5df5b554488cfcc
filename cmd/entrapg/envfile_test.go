package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

func TestEnvFile_OverridesAndReportsMissingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte("DATABASE_URL='host=from-file user=u entra_credential=none'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=host=from-environment"}
	r := runAs(t, env, "token", "--env-file", path)
	if r.code != command.Misuse || r.stderr != "entrapg: token: entra_credential=none uses no token\n" {
		t.Errorf("%+v", r)
	}
	if r := runAs(t, env, "token", "--env-file", path+".missing"); r.code != command.Failed ||
		!strings.Contains(r.stderr, "--env-file: open "+path+".missing: ") {
		t.Errorf("%+v", r)
	}
}
