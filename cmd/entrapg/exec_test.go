package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

func TestExec_TokenIsOnlyInEnvironment(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "exec-env", true)
	r := runAs(t, append(env, "PGPASSFILE=/nowhere"), "exec", "--", "sh", "-c", `echo "$@"; env`,
		"sh", "--list", "one two")
	lines := strings.Split(r.stdout, "\n")
	if r.code != 0 || lines[0] != "--list one two" {
		t.Fatalf("%+v", r)
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, "=")
		if strings.Contains(value, "eyJ") != (name == "PGPASSWORD") {
			t.Errorf("the token is in %s, or is missing there", name)
		}
		if name == "PGPASSFILE" {
			t.Errorf("%s is left", name)
		}
	}
}

func TestExec_WarnsOfMistakes(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-mistakes", true)
	psql := installed(t, "psql")
	if r := runAs(t, env, "exec", "--", psql, "-XAtc", "select 1", s.DSN("entra_credential=default")); r.code == 0 ||
		!strings.Contains(r.stderr, "libpq does not know the key entra_credential in the command's argument") {
		t.Errorf("an entra_ key: %+v", r)
	}
	if r := runAs(t, env, "exec", "dbname=shop", "--", psql); r.code != command.Failed ||
		!strings.Contains(r.stderr, "replaces DATABASE_URL") {
		t.Errorf("an argument without a host: %+v", r)
	}
	guest := s.Tenant.NewGuest("exec-guest@fabrikam.example")
	if r := runAs(t, azureCLI(t, s, guest), "exec", "--", psql, "--version"); r.code != 0 ||
		!strings.Contains(r.stderr, "such as exec-guest_fabrikam.example#EXT#@") {
		t.Errorf("a guest: %+v", r)
	}
}

func TestExec_DialsAddressOfPGHOSTADDR(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "exec-hostaddr", true)
	psql := installed(t, "psql")
	dsn := s.DSN("host=tunnel.invalid", "sslmode=verify-ca")
	for _, flags := range [][]string{{"exec"}, {"exec", "--proxy"}} {
		r := runAs(t, append(env, "PGHOSTADDR=127.0.0.1"), append(flags, dsn, "--", psql, "-XAtc", "select session_user")...)
		if r.code != 0 || r.stdout != "exec-hostaddr\n" {
			t.Errorf("%v: %+v", flags, r)
		}
	}
}

// With the Azure CLI, entrapg runs az too.
func TestExec_ChildProcessesInheritNoSecretOfOthers(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	p := s.Tenant.NewUser("exec-secrets@contoso.example")
	if err := s.CreateRole(t.Context(), "", p); err != nil {
		t.Fatal(err)
	}
	env := azureCLI(t, s, p)
	az := filepath.Join(strings.TrimPrefix(env[0], "PATH="), "az")
	script, err := os.ReadFile(az)
	if err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	if err := os.WriteFile(az, []byte(strings.Replace(string(script), "\n", "\nexport -p >"+seen+"\n", 1)), 0o700); err != nil {
		t.Fatal(err)
	}
	env = append(env, "PGPASSWORD=hidden-1", "ENTRAPG_PROXY_PASSWORD=hidden-2", "ENTRAPG_PROXY_DSN=host=h password=hidden-3",
		"ENTRAPG_PROXY_LISTEN=1=host=h password=hidden-4")
	sh := lookPath(t, "sh")
	for _, proxy := range []string{"--proxy=false", "--proxy"} {
		r := runAs(t, env, "exec", proxy, "--", sh, "-c", "export -p")
		tool, err := os.ReadFile(seen)
		if err != nil || r.code != 0 || strings.Contains(r.stdout, "hidden") || strings.Contains(string(tool), "hidden") {
			t.Errorf("%s: %+v, and az: %s, %v", proxy, r, tool, err)
		}
		os.Remove(seen)
	}
}

func TestExec_ExitsWithCodeOfCommand(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "exec-code", true)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": -1} {
		if want < 0 && runtime.GOOS == "windows" {
			continue // Windows cannot end a process by these signals
		}
		if r := runAs(t, env, "exec", "--", "sh", "-c", script); r.code != want {
			t.Errorf("%s: exit code %d, want %d", script, r.code, want)
		}
	}
	for name, test := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"no token": {
			append(env, "AZURE_CLIENT_ID=00000000-0000-0000-0000-000000000000"),
			[]string{"exec", "--", "true"},
			"no token from DefaultAzureCredential",
		},
		"no configuration": {env, []string{"exec", "host=h sslmode=prefer", "--", "true"}, "sslmode"},
	} {
		if r := runAs(t, test.env, test.args...); r.code != command.Failed || !strings.Contains(r.stderr, test.want) || r.stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestExec_RejectsCommandWithoutSeparator(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=host=h user=u password=p entra_credential=none"}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"psql"}, "exec: missing -- before the command; use entrapg exec -- psql"},
		{[]string{"psql", "-c", "select 1"}, "exec: missing -- before the command; use entrapg exec -- psql"},
		{[]string{"host=h password=secret", "my program"}, "exec: missing -- before the command; use entrapg exec DSN -- 'my program'"},
		{[]string{"psql", "--", "-c"}, `exec: unexpected argument "psql" before --`},
		{nil, "exec: missing command"},
		{[]string{"--"}, "exec: missing command"},
		{[]string{"host=h"}, "exec: missing command"},
		{[]string{"host=h", "--"}, "exec: missing command"},
	} {
		r := runAs(t, env, append([]string{"exec"}, test.args...)...)
		if r.code != command.Misuse || !strings.Contains(r.stderr, test.want) || strings.Contains(r.stderr, "secret") || r.stdout != "" {
			t.Errorf("%q: %+v, want %s", test.args, r, test.want)
		}
	}
}

// The command replaces entrapg, so entrapg cannot explain why the server rejects it.
func TestExec_RejectedLoginHasHintWithProxy(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "exec-without-role", false)
	psql := installed(t, "psql")
	r := runAs(t, env, "exec", "--", psql, "-c", "select 1")
	if r.code != 2 || !strings.Contains(r.stderr, "authentication") || strings.Contains(r.stderr, "HINT") {
		t.Errorf("%+v", r)
	}
	r = runAs(t, env, "exec", "--proxy", "--", psql, "-c", "select 1")
	if r.code != 2 || !strings.Contains(r.stderr, "HINT:  ") || !strings.Contains(r.stderr, "pgaadauth_create_principal") {
		t.Errorf("with --proxy: %+v", r)
	}
}

func TestExec_PsqlAndPgbenchLogIn(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "psql", true)
	_, stranger := identityWith(t, s, "stranger", false)

	psql := installed(t, "psql")
	if r := runAs(t, env, "exec", "--", psql, "-XAtc", "select session_user, current_database()"); r.code != 0 ||
		r.stdout != "psql|postgres\n" {
		t.Errorf("%+v", r)
	}
	if r := runAs(t, append(stranger, "PGUSER=psql"), "exec", "--", psql, "-XAtc", "select 1"); r.code == 0 ||
		!strings.Contains(r.stderr, `oid mismatch for role "psql"`) {
		t.Errorf("role of another identity: %+v", r)
	}
	if r := runAs(t, stranger, "exec", "--", psql, "-XAtc", "select 1"); r.code == 0 {
		t.Errorf("no role: %+v", r)
	}

	pgbench := installed(t, "pgbench")
	before := len(s.Logins())
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte("select 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runAs(t, env, "exec", "--", pgbench, "--connect", "--no-vacuum", "--client", "4", "--transactions", "3", "--file", script)
	if r.code != 0 || !strings.Contains(r.stdout, "number of failed transactions: 0 ") {
		t.Errorf("%+v", r)
	}
	logins := 0
	for _, l := range s.Logins()[before:] {
		if l.User == "psql" && l.Accepted && l.Application == "pgbench" {
			logins++
		}
	}
	if logins < 4*3 {
		t.Errorf("pgbench logged in %d times, want once for each transaction", logins)
	}
}

// installed finds one of PostgreSQL's programs. In CI, it may be missing only if the
// environment names a server.
func installed(t *testing.T, name string) string {
	t.Helper()
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	named := os.Getenv("ENTRAPG_POSTGRES_BIN")
	if named != "" {
		places = append(places, named)
	}
	for _, place := range slices.Backward(places) {
		if path := filepath.Join(place, name); exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	if _, err := exec.LookPath(name); err != nil && named != "" {
		t.Skip(err)
	}
	return lookPath(t, name)
}

// lookPath finds a program. If it is missing, the test fails in CI, and is skipped
// elsewhere.
func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("in CI, %s must be installed: %v", name, err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

func TestDSN_ComesFromArgumentFileOrEnvironment(t *testing.T) {
	t.Parallel()
	const show = `echo "$PGHOST $PGDATABASE"`
	file := filepath.Join(t.TempDir(), ".env")
	content := "# a comment\n\nexport DATABASE_URL='postgres://user:pw@127.0.0.3/file?entra_credential=none&sslmode=disable' # where\nPGAPPNAME=\"shop # 1\"\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	dsn := func(n int, name string) string {
		return fmt.Sprintf("postgres://user:pw@127.0.0.%d/%s?entra_credential=none&sslmode=disable", n, name)
	}
	env := map[string]string{"DATABASE_URL": dsn(2, "variable")}
	for name, test := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"DATABASE_URL":              {env, nil, "127.0.0.2 variable"},
		"--dsn":                     {env, []string{"--dsn", dsn(4, "flag")}, "127.0.0.4 flag"},
		"an argument":               {env, []string{dsn(5, "argument")}, "127.0.0.5 argument"},
		"a file":                    {env, []string{"--env-file", file}, "127.0.0.3 file"},
		"an argument beside a file": {env, []string{"--env-file=" + file, dsn(5, "argument")}, "127.0.0.5 argument"},
	} {
		var set []string
		for _, name := range slices.Sorted(maps.Keys(test.env)) {
			set = append(set, name+"="+test.env[name])
		}
		args := append(append([]string{"exec"}, test.args...), "--", "sh", "-c", show)
		if r := runAs(t, set, args...); r.code != 0 || strings.TrimSpace(r.stdout) != test.want {
			t.Errorf("%s: %+v, want %s", name, r, test.want)
		}
	}
	if r := runAs(t, nil, "exec", "--env-file", file, "--", "sh", "-c", `echo "$PGAPPNAME"`); r.stdout != "shop # 1\n" {
		t.Errorf("%+v", r)
	}
	if r := runAs(t, nil, "token", "--env-file", "/nowhere/.env"); r.code != command.Failed || !strings.Contains(r.stderr, "--env-file") {
		t.Errorf("%+v", r)
	}
}
