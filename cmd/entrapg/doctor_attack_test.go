package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/credfail"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

const (
	touch   = "$(touch touched)"
	control = "\x1b[2J\x1b]0;owned\a\r\u009b31m\u202eevil\u2066\u200b\x7f"
)

// requireHarmless fails if raw output contains a character that controls a terminal.
func requireHarmless(t *testing.T, output string) {
	t.Helper()
	for _, r := range output {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U in %q", r, output)
			return
		}
	}
}

func TestDoctor_NamesHostOnlyFromVerifiedCertificate(t *testing.T) {
	t.Parallel()
	const azureHost = "shop.postgres.database.azure.com"
	for name, test := range map[string]struct {
		names    []string
		unknown  bool // root
		want     string
		notMeans string
	}{
		"unknown root":                  {[]string{"evil.example"}, true, "", "own name"},
		"unknown root with Azure name":  {[]string{azureHost}, true, "", "own name"},
		"command":                       {[]string{touch}, false, "", ""},
		"command before a name":         {[]string{touch, "db.corner.example"}, false, "host=db.corner.example", ""},
		"setting":                       {[]string{"a host=evil.example"}, false, "", ""},
		"leading hyphen":                {[]string{"-evil.example"}, false, "", ""},
		"number":                        {[]string{"203.0.113.7", "2130706433"}, false, "", ""},
		"long label":                    {[]string{strings.Repeat("a", 64) + ".example"}, false, "", ""},
		"wildcard":                      {[]string{"*.corner.example"}, false, "", ""},
		"Azure name after another":      {[]string{"db.corner.example", azureHost}, false, "host=" + azureHost, ""},
		"name that only contains Azure": {[]string{azureHost + ".evil.example", azureHost}, false, "host=" + azureHost, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, ca := withCertificate(t, func(c *x509.Certificate) { c.DNSNames = test.names })
			dsn := "host=localhost port=" + port
			if !test.unknown {
				dsn += " " + dsnSetting(false, "sslrootcert", ca)
			}
			last, _ := visit(t, nil, failed, dsn)
			if last.Step != "TLS" || strings.Join(pasted(last.Fix), "\n") != test.want {
				t.Errorf("got %+v, want %q", last, test.want)
			}
			if test.notMeans != "" && strings.Contains(last.Explanation, test.notMeans) {
				t.Errorf("means %q", last.Explanation)
			}
		})
	}
}

// Anyone gets a certificate for a name of their own from a public authority.
func TestDoctor_NamesOnlyAzureHostUnderSystemRoots(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"evil.example":                     "",
		"shop.postgres.database.azure.com": "host=shop.postgres.database.azure.com",
	} {
		port, ca := withCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{name} })
		env := []string{"SSL_CERT_FILE=" + ca}
		needsCAVariable(t, env)
		if last, _ := visit(t, env, failed, "sslmode=verify-full host=localhost port="+port); last.Step != "TLS" ||
			strings.Join(pasted(last.Fix), "\n") != want {
			t.Errorf("%s: got %+v", name, last)
		}
	}
}

func TestDoctor_EscapesCertificate(t *testing.T) {
	t.Parallel()
	port, ca := withCertificate(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"evil\x1b[2J\r.example"}
		c.Subject = pkix.Name{CommonName: "evil" + control}
	})
	nameless, namelessCA := withCertificate(t, func(c *x509.Certificate) {
		c.DNSNames, c.Subject = nil, pkix.Name{CommonName: "evil" + control}
	})
	for _, dsn := range []string{
		"host=localhost port=" + port, "host=localhost port=" + port + " " + dsnSetting(false, "sslrootcert", ca),
		"host=localhost port=" + nameless + " " + dsnSetting(false, "sslrootcert", namelessCA),
	} {
		for _, format := range []string{"", "--json"} {
			args := append([]string{"doctor", dsn}, strings.Fields(format)...)
			r := runAs(t, nil, args...)
			requireHarmless(t, r.stdout+r.stderr)
			if !strings.Contains(r.stdout, "evil") {
				t.Errorf("%q: no certificate in %s", args, r.stdout)
			}
			if format != "" && !json.Valid([]byte(r.stdout)) {
				t.Errorf("%q: not JSON: %s", args, r.stdout)
			}
		}
	}
}

func TestDoctor_EscapesServerMessage(t *testing.T) {
	t.Parallel()
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{Upstream: azureServer(t).AdminDSN()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, env := identityWith(t, s, "escaped-message", true)
	s.SetFaults(entrapgtest.Faults{Reject: &entrapgtest.Rejection{Code: "28000", Message: "no " + control, Hint: control}})
	r := runAs(t, env, "doctor")
	requireHarmless(t, r.stdout+r.stderr)
	if !strings.Contains(r.stdout, `\u001b[2J\u001b]0;owned\u0007`) {
		t.Errorf("got %s", r.stdout)
	}
	r = runAs(t, env, "doctor", "--json")
	requireHarmless(t, r.stdout+r.stderr)
	var all []finding
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || !strings.Contains(all[len(all)-1].Error, "no "+control) {
		t.Errorf("%v: got %s", err, r.stdout)
	}
}

func TestDoctor_EscapesTokenAndEnvironment(t *testing.T) {
	t.Parallel()
	tenant := azureServer(t).Tenant
	p := tenant.NewServicePrincipal("hostile")
	p.Claims = map[string]any{"app_displayname": "hostile" + control, "oid": control, "tid": control}
	tenant.NewServicePrincipal("after hostile") // the tenant's lock orders the claims before what it issues
	env := append(
		p.Environ(),
		"SSL_CERT_FILE="+azureServer(t).CAFile(),
		"AZURE_TOKEN_CREDENTIALS=EnvironmentCredential",
		"DATABASE_URL="+azureServer(t).DSN(),
	)
	needsCAVariable(t, env)
	for _, test := range []struct {
		env  []string
		args []string
	}{
		{env, []string{"doctor"}},
		{env, []string{"doctor", "--json"}},
		{env, []string{"whoami"}},
		{env, []string{"whoami", "--json"}},
		{[]string{"PGHOST=/nowhere" + control, "PGSSLMODE=disable"}, []string{"doctor"}},
		{[]string{"PGHOST=h" + control, "PGSSLMODE=require"}, []string{"doctor"}},
		{[]string{"PGHOST=h", "PGSSLROOTCERT=/" + control}, []string{"doctor"}},
		{[]string{"PGHOST=h", "PGSSLROOTCERT=/" + control}, []string{"token"}},
	} {
		r := runAs(t, test.env, test.args...)
		requireHarmless(t, r.stdout+r.stderr)
		if r.stdout+r.stderr == "" {
			t.Errorf("%q: no output", test.args)
		}
	}
}

// On a terminal, the only escape sequences are those for color.
func TestDoctor_EscapesOnTerminal(t *testing.T) {
	var b bytes.Buffer
	out := &terminal{Writer: &b, color: true, live: true, width: 80}
	f := &finding{
		Step: "TLS", Status: statusFailed, Found: []string{control},
		trouble: trouble{Error: control, Explanation: control, Fix: []string{"# " + control, "x " + control}},
	}
	f.write(out)
	(&identity{Kind: control, Name: control, User: control, Claims: map[string]string{"aud": control}}).write(out)
	text := b.String()
	for _, color := range []string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"} {
		text = strings.ReplaceAll(text, color, "")
	}
	requireHarmless(t, text)
}

func TestDoctor_EscapesResolverAndEndpoint(t *testing.T) {
	x := attacked(t, "host=shop.postgres.database.azure.com")
	for _, trouble := range []*trouble{
		networkSteps{x}.unknownHost(x.endpoints[0], &net.DNSError{Err: control, Name: control, Server: control}),
		entraSteps{x}.noToken(&entrapg.TokenError{Err: errors.New(control)}),
	} {
		var b bytes.Buffer
		out := &terminal{Writer: &b, width: 80}
		f := &finding{Step: "x", Status: statusFailed, trouble: *trouble}
		f.write(out)
		if err := out.json(f); err != nil {
			t.Fatal(err)
		}
		requireHarmless(t, b.String())
	}
}

// A server repeats the token in an error of a query, after it has accepted the login.
func TestDoctor_RedactsTokenThatServerRepeatsAfterLogin(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go repeatToken(conn)
		}
	}()
	_, env := identityWith(t, azureServer(t), "repeated-token", true)
	for _, format := range []string{"", "--json"} {
		dsn := "host=127.0.0.1 sslmode=disable user=a dbname=a port=" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		r := runAs(t, env, slices.DeleteFunc([]string{"doctor", format, dsn}, func(s string) bool { return s == "" })...)
		if r.code != failed || strings.Contains(r.stdout+r.stderr, "eyJ") || !strings.Contains(r.stdout, "the token is [token]") {
			t.Errorf("%q: %+v", format, r)
		}
	}
}

// repeatToken accepts a login, and answers each query with an error that contains the
// password.
func repeatToken(conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationCleartextPassword{})
	if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	message, err := b.Receive()
	password, ok := message.(*pgproto3.PasswordMessage)
	if err != nil || !ok {
		return
	}
	token := password.Password
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		if _, err := b.Receive(); err != nil {
			return
		}
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "the token is " + token, Hint: token})
	}
}

// Pasted into zsh, a comment runs as a command.
func TestDoctor_CommentsAreHarmlessInZsh(t *testing.T) {
	dir := t.TempDir()
	lines := []string{
		"# in the service " + touch + " in `touch touched`: x; touch touched & touch touched | touch touched",
		"# it's $HOME, \"quoted >touched <(touch touched) =(touch touched) ${x:=y} !! \\", "# > touched",
	}
	var b bytes.Buffer
	(&finding{Step: "x", Status: statusFailed, trouble: trouble{Fix: append(lines, "echo pasted")}}).write(&terminal{Writer: &b, width: 80})
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
const injection = `x'; drop role postgres; --` + "\n" + touch + `"`

// attacked is an examination in which everything from outside is hostile.
func attacked(t *testing.T, dsn string) *examination {
	t.Helper()
	login, err := inspect.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(login.Close)
	login.Derive = func(context.Context) (*inspect.Token, error) { return &inspect.Token{User: injection}, nil }
	return &examination{
		// A second login fails at once, because it finds no az.
		dsn: dsn + " entra_credential=azurecli", tried: &attempts{},
		login: login, endpoints: endpointsOf(login.Config), token: &inspect.Token{User: injection + "@shop"},
		claims: claims.Claims{"oid": injection, "tid": injection, "idtyp": "app"},
	}
}

// advise returns the fix for a login that fails for a reason.
func advise(x *examination, kind pgfail.Kind, message string) []string {
	if !kind.AboutRole() {
		return serverSteps{x}.fix(kind, &pgconn.PgError{Message: message})
	}
	advice := &trouble{Error: message}
	roleAdvice{x, kind}.complete(context.Background(), advice)
	return advice.Fix
}

// hostileClaims are those of a managed identity, a service principal, a person and
// a guest.
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
	t.Setenv("AZURE_CLIENT_ID", touch+"\n"+touch+"'"+touch)
	for _, test := range []struct{ host, hostile string }{
		{"shop.postgres.database.azure.com", touch + ".postgres.database.azure.com"},
		{"shop.postgres.database.azure.com", "a'\"" + touch + ".postgres.database.azure.com"},
		{"localhost", touch},
		{"localhost", "a'\n" + touch},
	} {
		x := attacked(t, "dbname=shop host="+test.host)
		e := x.endpoints[0]
		e.host, x.login.Config.Host = test.hostile, test.hostile // package entrapg rejects such a host
		x.login.Config.Database = `d"; drop database postgres; --`
		troubles := []*trouble{
			networkSteps{x}.unknownHost(e, &net.DNSError{}), networkSteps{x}.unknownHost(e, &net.DNSError{IsNotFound: true}),
			networkSteps{x}.unreachable(e, context.DeadlineExceeded), networkSteps{x}.unreachable(e, errRefused),
			tlsStep{
				x,
			}.noTLS(
				e,
				x509.CertificateInvalidError{Reason: x509.Expired},
				[]*x509.Certificate{{}},
			), tlsStep{x}.noTLS(e, errors.New("x"), nil),
			tlsStep{x}.noTLS(e, x509.UnknownAuthorityError{}, []*x509.Certificate{{Issuer: pkix.Name{CommonName: touch + "'" + touch}}}),
		}
		for kind := credfail.Kind(0); kind < 40; kind++ {
			troubles = append(troubles, &trouble{Fix: entraSteps{x}.fix(kind)})
		}
		for _, x.claims = range hostileClaims {
			for kind := pgfail.Unknown; kind <= pgfail.TransactionPooling; kind++ {
				fix := advise(x, kind, "does not contain group ID --x"+touch)
				fix = slices.DeleteFunc(fix, func(line string) bool { return strings.HasSuffix(line, ";") }) // SQL
				troubles = append(troubles, &trouble{Fix: fix})
			}
		}
		for _, trouble := range troubles {
			for _, line := range trouble.Fix {
				requireHarmless(t, line)
				if strings.Contains(line, "\n") {
					t.Errorf("more than a line: %q", line)
				}
				requireInert(t, bash, touchPath, line)
			}
		}
	}
}

// A DSN, a variable and a service file can come from someone else than the person
// who pastes the fix.
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
	name := "x" + touch
	if err := os.WriteFile(services, []byte("["+name+"]\nsslmode="+touch+"\nuser="+touch+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dsn, variable, value string }{
		{"postgres://" + touch + "@x@h/d", "", ""},
		{"postgres://a/b" + touch + "@h/d", "", ""},
		{"host=h username='" + touch + "'", "", ""},
		{"host=h username='a\\'" + touch + "'", "", ""},
		{"postgres://h/d?username=" + strings.ReplaceAll(touch, " ", "%20"), "", ""},
		{"host=h '" + touch + "'=1", "", ""},
		{"host=h sslrootcert='C:\\" + touch + "'", "", ""},
		{"host=h sslrootcert=C:\\'" + touch + "'", "", ""},
		{"host=h sslmode='" + touch + "'", "", ""},
		{"host=h connect_timeout='5" + touch + "'", "", ""},
		{"host=h entra_credential='" + touch + "'", "", ""},
		{"host=h entra_client_id='" + touch + "'", "", ""},
		{"host='" + touch + "'", "", ""},
		{"host=h", "PGUSER", touch + "\n"},
		{"host=h", "PGUSER", "' " + touch + " \n"},
		{"host=h", "PGSSLMODE", touch},
		{"host=h", "PGSSLROOTCERT", "/nowhere\n" + touch},
		{"host=h", "PGSERVICE", "none\n" + touch},
		{"host=h", "PGSERVICE", name},
		{"host=h", "PGDATABASE", "'\n" + touch + "\n"},
	} {
		t.Run("", func(t *testing.T) {
			t.Setenv("PGSERVICEFILE", services)
			if test.variable != "" {
				t.Setenv(test.variable, test.value)
			}
			for _, source := range []string{"DATABASE_URL", "argument"} {
				x := &examination{dsn: test.dsn, source: source, tried: &attempts{}}
				failure := settingsStep{x}.read(t.Context(), &finding{Status: statusOK})
				if failure == nil {
					t.Fatalf("%+v: no failure", test)
				}
				if len(failure.Fix) == 0 {
					t.Errorf("%+v: no fix for %s", test, failure.Error)
				}
				for _, line := range failure.Fix {
					requireHarmless(t, line)
					if strings.Contains(line, "\n") {
						t.Errorf("more than a line: %q", line)
					}
					requireInert(t, bash, touchPath, line)
				}
			}
		})
	}
}

// requireInert runs a line where nothing but the shell itself exists.
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

func TestDoctor_QuotedTextArrivesUnchanged(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("no bash")
	}
	admin, err := pgx.Connect(t.Context(), azureServer(t).AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, want := range []string{"plain", touch, "it's", `a"b`, `back\slash`, "a\nb", control, "ü " + touch + "'\n!\\", "\U000e0001'"} {
		for _, quoted := range []string{literal(want), identifier(want), shell(want)} {
			requireHarmless(t, strings.ReplaceAll(quoted, "\n", "\v")) // a newline too must be escaped
		}
		got, err := exec.CommandContext(t.Context(), bash, "-c", "printf %s "+shell(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: bash reads %q, want %q (%v)", shell(want), got, want, err)
		}
		rows, err := admin.Query(t.Context(), "select "+literal(want)+" as "+identifier(want), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		column := rows.FieldDescriptions()
		value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
		if err != nil || value != want || column[0].Name != want {
			t.Errorf("%s: PostgreSQL reads %q (%v)", literal(want), value, err)
		}
	}
}

// Every claim and name in SQL is one literal or identifier.
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
					literal(x.token.User), identifier(x.token.User), literal(injection), literal(guestName(x.claims)), identifier(x.login.Config.Database),
					literal("aadauth,oid=" + x.claims.Text("oid") + ",type=service"), literal("aadauth,oid=" + x.claims.Text("oid") + ",type=user"),
					literal(x.claims.Text("oid")),
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
		`x\@shop`: `user='x\\'`, touch + "@shop": "user='" + touch + "'",
	} {
		x.token.User = user
		if got := advise(x, pgfail.ServerSuffix, ""); got[len(got)-1] != want {
			t.Errorf("%q: got %q, want %q", user, got, want)
		}
	}
}

func TestDoctor_ScopeIsNeverThatOfServiceFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("[shop]\nentra_scope=https://evil.example/.default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSERVICEFILE", file)
	t.Setenv("PGSERVICE", "shop")
	x := attacked(t, "host=shop.postgres.database.azure.com entra_scope=https://vault.azure.net/.default")
	rejected := &pgconn.PgError{Code: "28000", Message: "The access token does not have a valid audience claim."}
	got := append(serverSteps{x}.failed(t.Context(), &entrapg.LoginError{Err: rejected}).Fix, entraSteps{x}.fix(credfail.NeedsSecondFactor)...)
	if text := strings.Join(got, "\n"); strings.Contains(text, "evil") || strings.Contains(text, "vault") {
		t.Errorf("got %q", got)
	}
}
