package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal/terminaltest"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/internal/claims"
)

func TestToken_PrintsOnlyTheToken(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "token", true)
	for _, args := range [][]string{{"token"}, {"token", "host=shop.postgres.database.azure.com"}, {"token", "--dsn", "host=h user=somebody"}} {
		r := runAs(t, env, args...)
		if r.code != 0 || !regexp.MustCompile(`^eyJ[\w-]+\.[\w-]+\.[\w-]+\n$`).MatchString(r.stdout) || r.stderr != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestToken_NeedsNoUser(t *testing.T) {
	t.Parallel()
	tenant := azureServer(t).Tenant
	nameless := tenant.NewUserAssignedIdentity(strings.Repeat("too-long", 8))
	nameless.Claims = map[string]any{"appid": nil}
	env := append(tenant.NewHost(nameless).Environ(), "AZURE_CLIENT_ID="+nameless.ClientID,
		"AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential")
	if r := runAs(t, env, "whoami"); r.code != command.Failed || !strings.Contains(r.stderr, "no PostgreSQL user") {
		t.Errorf("whoami found a user: %+v", r)
	}
	if r := runAs(t, env, "token"); r.code != command.Done || !strings.HasPrefix(r.stdout, "eyJ") {
		t.Errorf("%+v", r)
	}
}

func TestToken_FailureNamesTheDoctorWithItsDSN(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(file, []byte("DATABASE_URL=host=h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const other = "DATABASE_URL=host=h"
	for _, test := range []struct {
		variable, want string
		args           []string
	}{
		{"PGHOST=", "entrapg doctor DSN", []string{"token"}},
		{other, "entrapg doctor", []string{"token"}},
		{"PGHOST=h", "entrapg doctor", []string{"exec", "--", os.Args[0]}},
		{"PGHOST=", "entrapg doctor --env-file " + file, []string{"token", "--env-file", file}},
		{"PGHOST=", "entrapg doctor --env-file " + file + " DSN", []string{"token", "--env-file", file, "host=i"}},
		{other, "entrapg doctor DSN", []string{"token", "host=i"}},
		{other, "entrapg doctor DSN", []string{"token", "--dsn", "host=i"}},
		{other, "entrapg doctor DSN", []string{"whoami", "host=i"}},
		{other, "entrapg doctor DSN", []string{"whoami", "--dsn", "host=i"}},
		{other, "entrapg doctor DSN", []string{"exec", "host=i", "--", os.Args[0]}},
		{other, "entrapg doctor DSN", []string{"exec", "--dsn", "host=i", "--", os.Args[0]}},
		{other, "entrapg doctor DSN", []string{"exec", "--proxy", "host=i", "--", os.Args[0]}},
		{"PGHOST=h", "entrapg doctor DSN", []string{"exec", "host=i", "--", os.Args[0]}},
	} {
		r := runAs(t, []string{"AZURE_TOKEN_CREDENTIALS=EnvironmentCredential", test.variable}, test.args...)
		if r.code != command.Failed || !strings.Contains(r.stderr, "\nrun '"+test.want+"' for") {
			t.Errorf("%s, %q: got %+v, want %s", test.variable, test.args, r, test.want)
		}
	}
}

func TestWhoami_ShowsUserAndRule(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, identity := identityWith(t, s, "who-identity", false)
	overHTTPS := func(p *entrapgtest.Principal) []string {
		return append(p.Environ(), "SSL_CERT_FILE="+s.CAFile(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential")
	}
	service := overHTTPS(s.Tenant.NewServicePrincipal("deployer"))
	alice := overHTTPS(s.Tenant.NewUser("alice@contoso.example"))

	for name, test := range map[string]struct {
		env                          []string
		args                         []string
		kind, user, rule, credential string
	}{
		"a managed identity": {
			identity, nil, claims.ManagedIdentity, "who-identity", "the claim xms_mirid of a token for Azure Resource Manager",
			"ManagedIdentityCredential, of DefaultAzureCredential",
		},
		"a service principal": {
			service, nil, claims.ServicePrincipal, "deployer", "the claim app_displayname",
			"EnvironmentCredential, of DefaultAzureCredential",
		},
		"a person": {
			alice, nil, claims.User, "alice@contoso.example", "the claim upn",
			"EnvironmentCredential, of DefaultAzureCredential",
		},
		"a person as a group": {
			alice,
			[]string{"host=h user=readers"},
			claims.User, "readers", "the DSN",
			"EnvironmentCredential, of DefaultAzureCredential",
		},
		"one credential": {
			alice,
			[]string{"host=h entra_credential=environment"},
			claims.User, "alice@contoso.example", "the claim upn",
			"EnvironmentCredential",
		},
	} {
		t.Run(name, func(t *testing.T) {
			needsCAVariable(t, test.env)
			r := runAs(t, test.env, append([]string{"whoami", "--json"}, test.args...)...)
			var got identityJSON
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
				t.Fatalf("%v: %+v", err, r)
			}
			if want := (identityJSON{test.kind, test.user, test.rule, test.credential}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			r = runAs(t, test.env, append([]string{"whoami"}, test.args...)...)
			words := strings.Join(strings.Fields(r.stdout), " ")
			if r.code != 0 || !strings.Contains(words, "user "+test.user+", from "+test.rule) || !strings.Contains(words, test.kind) ||
				!strings.Contains(words, "59m") {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.stdout+r.stderr, "eyJ") {
				t.Error("the output contains the token")
			}
			fits(t, r.stdout)
		})
	}
}

type identityJSON struct{ Kind, User, Rule, Credential string }

// fits checks that a text fits into 80 columns.
func fits(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > 80 || strings.HasSuffix(line, " ") || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestCommand_WriteErrorIsFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	defer full.Close()
	if code := run(t.Context(), []string{"help"}, full, os.Stderr); code != command.Failed {
		t.Errorf("exit code %d, want %d", code, command.Failed)
	}
}

// On a terminal, the only escape sequences are those for color.
func TestWhoami_EscapesOnTerminal(t *testing.T) {
	var b bytes.Buffer
	who := &identity{Kind: terminaltest.Control, Name: terminaltest.Control, User: terminaltest.Control, Claims: map[string]string{"aud": terminaltest.Control}}
	who.write(&terminal.Output{Writer: &b, Color: true, Width: 80})
	terminaltest.RequireHarmless(t, strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "").Replace(b.String()))
}
