package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
)

func TestExec_SSLCertFileReplacesSystemRoots(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "roots", true)
	needsCAVariable(t, env)
	// The server's certificate is not verified by sslrootcert, but by SSL_CERT_FILE.
	r := runAs(t, append(env, "SSL_CERT_FILE="+s.CAFile()), "exec", "host=localhost port="+portOf(t, s)+" dbname=postgres sslrootcert=system",
		"--", installed(t, "psql"), "-XAtc", "select session_user")
	if r.code != 0 || r.stdout != "roots\n" {
		t.Errorf("%+v", r)
	}
}

// With sslmode=require, libpq does not verify the server if it cannot read the file of root
// certificates.
func TestExec_VerifiesServerWhereverCommandRuns(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "roots-require", true)
	psql := installed(t, "psql") + " -XAtc 'select session_user'"
	dsn := "host=localhost port=" + portOf(t, s) + " dbname=postgres sslmode=require "
	const other = "internal/roots/testdata/ca.pem" // not the authority of the server
	copied := filepath.Join(t.TempDir(), "ca.pem")
	certificates, err := os.ReadFile(other)
	if err == nil {
		err = os.WriteFile(copied, certificates, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, root, script, want string }{
		{"command in another directory", other, "cd / && exec " + psql, "certificate verify failed"},
		{"command that cannot read the file", copied, "rm \"$PGSSLROOTCERT\" && exec " + psql, "does not exist"},
	} {
		r := runAs(t, env, "exec", dsn+quote.DSNSetting(false, "sslrootcert", test.root), "--", "sh", "-c", test.script)
		if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%s: %+v, want %s", test.name, r, test.want)
		}
	}
	for _, login := range s.Logins() {
		if login.User == "roots-require" {
			t.Errorf("the server got the token: %+v", login)
		}
	}
	r := runAs(t, env, "exec", dsn+quote.DSNSetting(false, "sslrootcert", s.CAFile()), "--", "sh", "-c", "cd / && exec "+psql)
	if r.code != 0 || r.stdout != "roots-require\n" {
		t.Errorf("%+v", r)
	}
}

func TestToken_ExampleVerifiesServer(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	var script strings.Builder
	for line := range strings.Lines(runAs(t, nil, "token", "--help").stdout) {
		if strings.HasPrefix(line, "  export ") || strings.HasPrefix(line, "  PGPASSWORD=") {
			script.WriteString(line)
		}
	}
	example := strings.NewReplacer("$(entrapg token)", "secret", "psql", installed(t, "psql"),
		"HOST", "localhost port="+portOf(t, s)+" dbname=postgres", "shop-api", "token-example").Replace(script.String())
	cmd := exec.CommandContext(t.Context(), "sh", "-c", example)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "certificate") {
		t.Errorf("%s%s%v", example, out, err)
	}
	for _, login := range s.Logins() {
		if login.User == "token-example" {
			t.Errorf("%sthe server got the token: %+v", example, login)
		}
	}
}
