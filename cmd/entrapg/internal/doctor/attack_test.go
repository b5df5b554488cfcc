package doctor

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/azlog"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal/terminaltest"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// injected is a command that a shell must not run.
const injected = "$(touch touched)"

// On a terminal, the only escape sequences are those for color.
func TestDoctor_EscapesOnTerminal(t *testing.T) {
	var b bytes.Buffer
	out := &terminal.Output{Writer: &b, Color: true, Live: true, Width: 80}
	f := &finding{
		Step: "TLS", Status: statusFailed, Found: []string{terminaltest.Control},
		problem: problem{
			Error: terminaltest.Control, Explanation: terminaltest.Control,
			Fix: []string{"# " + terminaltest.Control, "x " + terminaltest.Control},
		},
	}
	f.write(out)
	text := b.String()
	for _, color := range []string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"} {
		text = strings.ReplaceAll(text, color, "")
	}
	terminaltest.RequireHarmless(t, text)
}

func TestDoctor_EscapesResolverAndEndpoint(t *testing.T) {
	x := attacked(t, "host=shop.postgres.database.azure.com")
	for _, problem := range []*problem{
		networkSteps{x}.unknownHost(x.endpoints[0], &net.DNSError{Err: terminaltest.Control, Name: terminaltest.Control, Server: terminaltest.Control}),
		entraSteps{x}.noToken(&entrapg.TokenError{Err: errors.New(terminaltest.Control)}),
	} {
		var b bytes.Buffer
		out := &terminal.Output{Writer: &b, Width: 80}
		f := &finding{Step: "x", Status: statusFailed, problem: *problem}
		f.write(out)
		if err := out.JSON(f); err != nil {
			t.Fatal(err)
		}
		terminaltest.RequireHarmless(t, b.String())
	}
}

// Zsh runs a comment that is pasted as a command.
func TestDoctor_CommentsAreHarmlessInZsh(t *testing.T) {
	dir := t.TempDir()
	lines := []string{
		"# in the service " + injected + " in `touch touched`: x; touch touched & touch touched | touch touched",
		"# it's $HOME, \"quoted >touched <(touch touched) =(touch touched) ${x:=y} !! \\", "# > touched",
	}
	var b bytes.Buffer
	f := &finding{Step: "x", Status: statusFailed, problem: problem{Fix: append(lines, "echo pasted")}}
	f.write(&terminal.Output{Writer: &b, Width: 80})
	_, text, _ := strings.Cut(b.String(), "to fix it\n")
	if strings.ContainsAny(text, "'\"`$;&|<>()!{\\") {
		t.Errorf("got %s", text)
	}
	zsh, err := exec.LookPath("zsh")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), zsh, "-f", "-i")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(text)
	out, _ := cmd.Output()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 || !strings.Contains(string(out), "pasted") {
		t.Errorf("zsh printed %q and left %v, %v", out, entries, err)
	}
}

// injection is text that ends a literal of SQL, a line of a shell, and more.
const injection = `x'; drop role postgres; --` + "\n" + injected + `"`

// attacked is the state of a login in which all external input is hostile.
func attacked(t *testing.T, dsn string) *state {
	t.Helper()
	login, err := inspect.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(login.Close)
	login.Derive = func(context.Context) (*inspect.Token, error) { return &inspect.Token{User: injection}, nil }
	return &state{
		// A second login fails at once, because it finds no az.
		dsn: dsn + " entra_credential=azurecli", tried: &azlog.Attempts{},
		login: login, endpoints: endpointsOf(login), token: &inspect.Token{User: injection + "@shop"},
		claims: claims.Claims{"oid": injection, "tid": injection, "idtyp": "app"},
	}
}

// advise returns the fix for a login that fails for a reason.
func advise(x *state, kind pgfail.Kind, message string) []string {
	if !kind.AboutRole() {
		return serverSteps{x}.fix(kind, &pgconn.PgError{Message: message})
	}
	advice := &problem{Error: message}
	roleFix{fixes{x}, kind}.explain(context.Background(), advice)
	return advice.Fix
}

// hostileClaims are claims of a managed identity, a service principal, a user and a
// guest.
var hostileClaims = []claims.Claims{
	{"oid": injection, "tid": injection, "idtyp": "app", "xms_idrel": injection},
	{"oid": injection, "tid": injection, "idtyp": "app"},
	{"oid": injection, "tid": injection, "upn": injection},
	{"oid": injection, "tid": injection, "idp": "live.com", "unique_name": "live.com#" + injection + "@x", "email": injection + "@x"},
	{"idtyp": "app", "appid": injection},
}

func TestDoctor_FixesRunNoInjectedCommand(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	touchPath, err := exec.LookPath("touch")
	if err != nil {
		t.Skip(err)
	}
	t.Setenv("PATH", t.TempDir()) // no az
	t.Setenv("AZURE_CLIENT_ID", injected+"\n"+injected+"'"+injected)
	run := map[string]bool{} // many problems have the same lines
	for _, test := range []struct{ host, hostile string }{
		{"shop.postgres.database.azure.com", injected + ".postgres.database.azure.com"},
		{"shop.postgres.database.azure.com", "a'\"" + injected + ".postgres.database.azure.com"},
		{"localhost", injected},
		{"localhost", "a'\n" + injected},
	} {
		x := attacked(t, "dbname=shop host="+test.host)
		e := x.endpoints[0]
		e.host, x.login.Config.Host = test.hostile, test.hostile // package entrapg rejects such a host
		x.login.Config.Database = `d"; drop database postgres; --`
		problems := []*problem{
			networkSteps{x}.unknownHost(e, &net.DNSError{}), networkSteps{x}.unknownHost(e, &net.DNSError{IsNotFound: true}),
			networkSteps{x}.unreachable(e, context.DeadlineExceeded), networkSteps{x}.unreachable(e, errRefused),
			tlsStep{x}.noTLS(e, x509.CertificateInvalidError{Reason: x509.Expired}, []*x509.Certificate{{}}),
			tlsStep{x}.noTLS(e, errors.New("x"), nil),
			tlsStep{x}.noTLS(e, x509.UnknownAuthorityError{}, []*x509.Certificate{{Issuer: pkix.Name{CommonName: injected + "'" + injected}}}),
		}
		for kind := credfail.Kind(0); kind < 40; kind++ {
			problems = append(problems, &problem{Fix: entraSteps{x}.fix(kind)})
		}
		for _, x.claims = range hostileClaims {
			for kind := pgfail.Unknown; kind <= pgfail.TransactionPooling; kind++ {
				fix := advise(x, kind, "does not contain group ID --x"+injected)
				fix = slices.DeleteFunc(fix, func(line string) bool { return strings.HasSuffix(line, ";") }) // SQL
				problems = append(problems, &problem{Fix: fix})
			}
		}
		for _, problem := range problems {
			for _, line := range problem.Fix {
				if run[line] {
					continue
				}
				run[line] = true
				terminaltest.RequireHarmless(t, line)
				if strings.Contains(line, "\n") {
					t.Errorf("more than a line: %q", line)
				}
				requireInert(t, bash, touchPath, line)
			}
		}
	}
}

// An attacker may have written the DSN, a variable or a service file.
func TestDoctor_FixesOfSettingsRunNoInjectedCommand(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	touchPath, err := exec.LookPath("touch")
	if err != nil {
		t.Skip(err)
	}
	services := filepath.Join(t.TempDir(), "services")
	name := "x" + injected
	if err := os.WriteFile(services, []byte("["+name+"]\nsslmode="+injected+"\nuser="+injected+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dsn, variable, value string }{
		{"postgres://" + injected + "@x@h/d", "", ""},
		{"postgres://a/b" + injected + "@h/d", "", ""},
		{"host=h username='" + injected + "'", "", ""},
		{"host=h username='a\\'" + injected + "'", "", ""},
		{"postgres://h/d?username=" + strings.ReplaceAll(injected, " ", "%20"), "", ""},
		{"host=h '" + injected + "'=1", "", ""},
		{"host=h sslrootcert='C:\\" + injected + "'", "", ""},
		{"host=h sslrootcert=C:\\'" + injected + "'", "", ""},
		{"host=h sslmode='" + injected + "'", "", ""},
		{"host=h connect_timeout='5" + injected + "'", "", ""},
		{"host=h entra_credential='" + injected + "'", "", ""},
		{"host=h entra_client_id='" + injected + "'", "", ""},
		{"host='" + injected + "'", "", ""},
		{"host=h", "PGUSER", injected + "\n"},
		{"host=h", "PGUSER", "' " + injected + " \n"},
		{"host=h", "PGSSLMODE", injected},
		{"host=h", "PGSSLROOTCERT", "/nowhere\n" + injected},
		{"host=h", "PGSERVICE", "none\n" + injected},
		{"host=h", "PGSERVICE", name},
		{"host=h", "PGDATABASE", "'\n" + injected + "\n"},
	} {
		t.Run("", func(t *testing.T) {
			t.Setenv("PGSERVICEFILE", services)
			if test.variable != "" {
				t.Setenv(test.variable, test.value)
			}
			for _, source := range []string{"DATABASE_URL", "argument"} {
				x := &state{dsn: test.dsn, source: source, tried: &azlog.Attempts{}}
				failure := settingsStep{x}.read(t.Context(), &finding{Status: statusOK})
				if failure == nil {
					t.Fatalf("%+v: no failure", test)
				}
				if len(failure.Fix) == 0 {
					t.Errorf("%+v: no fix for %s", test, failure.Error)
				}
				for _, line := range failure.Fix {
					terminaltest.RequireHarmless(t, line)
					if strings.Contains(line, "\n") {
						t.Errorf("more than a line: %q", line)
					}
					requireInert(t, bash, touchPath, line)
				}
			}
		})
	}
}

// requireInert runs a line in a shell without access to other commands.
func requireInert(t *testing.T, bash, touchPath, line string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(touchPath, filepath.Join(dir, "touch")); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), bash, "-c", line)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir}
	cmd.Run() // it fails, because no other command exists
	if _, err := os.Stat(filepath.Join(dir, "touched")); err == nil {
		t.Errorf("a command ran: %s", line)
	}
}

// In SQL, every claim and name is one literal or identifier.
func TestDoctor_SQLHasNoInjectedStatement(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	x := attacked(t, `host=shop.postgres.database.azure.com user=u dbname='d"; drop database postgres; --'`)
	for _, x.claims = range hostileClaims {
		for kind := pgfail.Unknown; kind <= pgfail.TransactionPooling; kind++ {
			for _, line := range advise(x, kind, "") {
				if strings.HasPrefix(line, "--") || strings.HasPrefix(line, "#") || !strings.HasSuffix(line, ";") {
					continue
				}
				bare := line
				for _, quoted := range []string{
					quote.Literal(x.token.User), quote.Identifier(x.token.User), quote.Literal(injection),
					quote.Literal(x.claims.GuestName()), quote.Identifier(x.login.Config.Database),
					quote.Literal("aadauth,oid=" + x.claims.Text("oid") + ",type=service"), quote.Literal("aadauth,oid=" + x.claims.Text("oid") + ",type=user"),
					quote.Literal(x.claims.Text("oid")),
				} {
					bare = strings.ReplaceAll(bare, quoted, "")
				}
				if strings.Contains(bare, "drop") || strings.Contains(line, "\n") {
					t.Errorf("%v: %s", kind, line)
				}
			}
		}
	}
}

func TestDoctor_UserOfSingleServerIsOneSetting(t *testing.T) {
	x := attacked(t, "host=shop.postgres.database.azure.com")
	for user, want := range map[string]string{
		"bob@shop": "user=bob", "bob smith@shop": "user='bob smith'", `x' host=evil.example y='@shop`: "user=ROLE", "x\ny@shop": "user=ROLE",
		`x\@shop`: `user='x\\'`, injected + "@shop": "user='" + injected + "'",
	} {
		x.token.User = user
		if got := advise(x, pgfail.ServerSuffix, ""); got[len(got)-1] != want {
			t.Errorf("%q: got %q, want %q", user, got, want)
		}
	}
}

func TestDoctor_ScopeNeverComesFromServiceFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("[shop]\nentra_scope=https://evil.example/.default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSERVICEFILE", file)
	t.Setenv("PGSERVICE", "shop")
	x := attacked(t, "host=shop.postgres.database.azure.com entra_scope=https://vault.azure.net/.default")
	rejected := &pgconn.PgError{Code: "28000", Message: "The access token does not have a valid audience claim."}
	got := append(reject(t, x, rejected, pgfail.Login{}).Fix, entraSteps{x}.fix(credfail.NeedsSecondFactor)...)
	if text := strings.Join(got, "\n"); strings.Contains(text, "evil") || strings.Contains(text, "vault") {
		t.Errorf("got %q", got)
	}
}
