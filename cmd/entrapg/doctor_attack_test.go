package main

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal/terminaltest"
	"github.com/entrapg/entrapg/entrapgtest"
)

const touch = "$(touch touched)"

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
				dsn += " " + quote.DSNSetting(false, "sslrootcert", ca)
			}
			last, _ := visit(t, nil, command.Failed, dsn)
			if last.Step != "TLS" || strings.Join(pasted(last.Fix), "\n") != cmp.Or(test.want, showFingerprint(port)) {
				t.Errorf("got %+v, want %q", last, test.want)
			}
			if test.notMeans != "" && strings.Contains(last.Explanation, test.notMeans) {
				t.Errorf("means %q", last.Explanation)
			}
		})
	}
}

// showFingerprint is the fix if no name of a certificate can be used.
func showFingerprint(port string) string {
	return "openssl s_client -starttls postgres -connect localhost:" + port + " </dev/null | openssl x509 -noout -fingerprint -sha256"
}

// A public authority issues a certificate to anyone, for a name that they own.
func TestDoctor_NamesOnlyAzureHostUnderSystemRoots(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"evil.example":                     "",
		"shop.postgres.database.azure.com": "host=shop.postgres.database.azure.com",
	} {
		port, ca := withCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{name} })
		env := []string{"SSL_CERT_FILE=" + ca}
		needsCAVariable(t, env)
		if last, _ := visit(t, env, command.Failed, "sslmode=verify-full host=localhost port="+port); last.Step != "TLS" ||
			strings.Join(pasted(last.Fix), "\n") != cmp.Or(want, showFingerprint(port)) {
			t.Errorf("%s: got %+v", name, last)
		}
	}
}

func TestDoctor_EscapesCertificate(t *testing.T) {
	t.Parallel()
	port, ca := withCertificate(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"evil\x1b[2J\r.example"}
		c.Subject = pkix.Name{CommonName: "evil" + terminaltest.Control}
	})
	nameless, namelessCA := withCertificate(t, func(c *x509.Certificate) {
		c.DNSNames, c.Subject = nil, pkix.Name{CommonName: "evil" + terminaltest.Control}
	})
	for _, dsn := range []string{
		"host=localhost port=" + port, "host=localhost port=" + port + " " + quote.DSNSetting(false, "sslrootcert", ca),
		"host=localhost port=" + nameless + " " + quote.DSNSetting(false, "sslrootcert", namelessCA),
	} {
		for _, format := range []string{"", "--json"} {
			args := append([]string{"doctor", dsn}, strings.Fields(format)...)
			r := runAs(t, nil, args...)
			terminaltest.RequireHarmless(t, r.stdout+r.stderr)
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
	s := ownServer(t)
	_, env := identityWith(t, s, "escaped-message", true)
	s.SetFaults(entrapgtest.Faults{Reject: &entrapgtest.Rejection{Code: "28000", Message: "no " + terminaltest.Control, Hint: terminaltest.Control}})
	r := runAs(t, env, "doctor")
	terminaltest.RequireHarmless(t, r.stdout+r.stderr)
	if !strings.Contains(r.stdout, `\u001b[2J\u001b]0;owned\u0007`) {
		t.Errorf("got %s", r.stdout)
	}
	r = runAs(t, env, "doctor", "--json")
	terminaltest.RequireHarmless(t, r.stdout+r.stderr)
	var all []doctorFinding
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || !strings.Contains(all[len(all)-1].Error, "no "+terminaltest.Control) {
		t.Errorf("%v: got %s", err, r.stdout)
	}
}

func TestDoctor_EscapesTokenAndEnvironment(t *testing.T) {
	t.Parallel()
	tenant := azureServer(t).Tenant
	p := tenant.NewServicePrincipal("hostile")
	p.Claims = map[string]any{"app_displayname": "hostile" + terminaltest.Control, "oid": terminaltest.Control, "tid": terminaltest.Control}
	tenant.NewServicePrincipal("after hostile") // locks the tenant after the claims are set
	env := append(p.Environ(), "SSL_CERT_FILE="+azureServer(t).CAFile(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential",
		"DATABASE_URL="+azureServer(t).DSN())
	needsCAVariable(t, env)
	for _, test := range []struct {
		env  []string
		args []string
	}{
		{env, []string{"doctor"}},
		{env, []string{"doctor", "--json"}},
		{env, []string{"whoami"}},
		{env, []string{"whoami", "--json"}},
		{[]string{"PGHOST=/nowhere" + terminaltest.Control, "PGSSLMODE=disable"}, []string{"doctor"}},
		{[]string{"PGHOST=h" + terminaltest.Control, "PGSSLMODE=require"}, []string{"doctor"}},
		{[]string{"PGHOST=h", "PGSSLROOTCERT=/" + terminaltest.Control}, []string{"doctor"}},
		{[]string{"PGHOST=h", "PGSSLROOTCERT=/" + terminaltest.Control}, []string{"token"}},
	} {
		r := runAs(t, test.env, test.args...)
		terminaltest.RequireHarmless(t, r.stdout+r.stderr)
		if r.stdout+r.stderr == "" {
			t.Errorf("%q: no output", test.args)
		}
	}
}

// After the login, a server repeats the token in the error of a query.
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
		if r.code != command.Failed || strings.Contains(r.stdout+r.stderr, "eyJ") || !strings.Contains(r.stdout, "the token is [token]") ||
			!strings.Contains(r.stdout, "entrapg exec DSN -- psql -Xc 'select version()'") {
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
