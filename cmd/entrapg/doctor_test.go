package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A doctorFinding is an object of the doctor's JSON.
type doctorFinding struct {
	Step, Status       string
	Found              []string
	Settings           []setting
	Error, Explanation string
	Fix                []string
}

type setting struct{ Name, Value, Origin string }

// visit runs the doctor twice at the same time, with text and with JSON output. It checks
// the properties that all outputs share, and returns the last finding.
func visit(t *testing.T, env []string, wantCode int, args ...string) (last doctorFinding, all []doctorFinding) {
	t.Helper()
	forPeople := startAs(t, env, append([]string{"doctor"}, args...)...)
	r := runAs(t, env, append([]string{"doctor", "--json"}, args...)...)
	people := forPeople()
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) == 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	last = all[len(all)-1]
	if r.code != wantCode || people.code != wantCode {
		t.Errorf("exit codes %d and %d, want %d\n%s", r.code, people.code, wantCode, people.stdout)
	}
	text := people.stdout
	if last.Explanation != "" && strings.Contains(last.Error, last.Explanation) {
		t.Errorf("the error repeats the explanation: %q", last.Error)
	}
	for _, f := range all {
		if !strings.Contains(text, " "+f.Step+" ") {
			t.Errorf("the text does not show step %s:\n%s", f.Step, text)
		}
	}
	for _, line := range last.Fix {
		if !strings.HasPrefix(line, "--") && !strings.HasPrefix(line, "#") && !strings.Contains(text, "    "+line+"\n") {
			t.Errorf("%q is not on a separate line:\n%s", line, text)
		}
	}
	for _, secret := range slices.Concat(env, []string{"eyJ"}) {
		if name, value, ok := strings.Cut(secret, "="); ok &&
			(name == "IDENTITY_HEADER" || name == "AZURE_CLIENT_SECRET" || name == "AZURE_PASSWORD") {
			secret = value
		} else if ok {
			continue
		}
		if secret != "" && strings.Contains(text+r.stdout+r.stderr+people.stderr, secret) {
			t.Errorf("the output contains a secret:\n%s", text)
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.Fields(line)
		if n := len([]rune(line)); n > 80 && !slices.Contains(last.Fix, strings.TrimSpace(line)) && len(words) > 3 ||
			strings.HasSuffix(line, " ") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	return last, all
}

func TestDoctor_ReportsEveryStepOfWorkingLogin(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "healthy", true)
	_, all := visit(t, env, command.Done)
	var steps []string
	for _, f := range all {
		steps = append(steps, f.Step)
		if f.Status != "ok" || len(f.Found) == 0 {
			t.Errorf("%+v", f)
		}
	}
	if got, want := strings.Join(steps, " "), "DSN TCP TLS credential token user login server clock"; got != want { // an address needs no DNS
		t.Errorf("got steps %s, want %s", got, want)
	}
	for step, want := range map[string]string{
		"DSN": "verify-full", "TLS": "TLS 1.3, verified; certificate for localhost", "credential": "ManagedIdentityCredential, of DefaultAzureCredential",
		"token": "of a managed identity, expires in 59m", "user": "healthy, from the claim xms_mirid of a token for Azure Resource Manager",
		"login": "as healthy", "server": "encrypted with TLS 1.3",
	} {
		i := slices.Index(steps, step)
		if i < 0 || !strings.Contains(strings.Join(all[i].Found, "\n"), want) {
			t.Errorf("%s: want %q in %+v", step, want, all)
		}
	}
}

func TestDoctor_ReportsVerificationUnderRequire(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "under-require", true)
	_, all := visit(t, env, command.Done, s.DSN()+"&sslmode=require")
	for _, f := range all {
		if f.Step == "TLS" && !strings.HasPrefix(f.Found[0], "TLS 1.3, verified;") {
			t.Errorf("got %q", f.Found)
		}
	}
}

func TestDoctor_ReportsMissingSettingsOfCredential(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "not-set-up", true)
	_, all := visit(t, append(env, "AZURE_TOKEN_CREDENTIALS=prod"), command.Done)
	for _, f := range all {
		if f.Step == "credential" {
			if text := strings.Join(f.Found, "\n"); !strings.Contains(text, "not set up: EnvironmentCredential: ") ||
				!strings.Contains(text, "not set up: WorkloadIdentityCredential: ") {
				t.Error(text)
			}
			return
		}
	}
	t.Error("no step credential")
}

// The table has a row for each known message of Azure's servers.
func TestDoctor_ExplainsAzureErrorAndFix(t *testing.T) {
	t.Parallel()
	const label = `security label for "pgaadauth" on role "ROLE" is 'aadauth,oid=OBJECT_ID,type=service';`
	messages := []struct{ code, message, hint, means, fix string }{
		{"28000", "The access token has expired. Acquire a new token and try again.", "", "clock", "date -u"},
		{
			"28000",
			"The access token does not have a valid audience claim. Please acquire a new token for the resource " +
				`"https://ossrdbms-aad.database.usgovcloudapi.net".`,
			"", "another service or cloud", "entrapg whoami",
		},
		{
			"28000",
			"The access token doesn't have a valid audience claim. Acquire a new token for the resource " +
				`"https://token.postgres.cosmos.azure.com" and try again`,
			"", "another service or cloud", "entrapg whoami",
		},
		{
			"28000", `The access token does not have a valid audience claim. Please acquire a new token for the resource "%s".`,
			"", "another service or cloud", "entrapg whoami",
		},
		{
			"28000",
			"The access token has invalid format. Please ensure the token is passed exactly as returned by the " +
				"authentication endpoint and retry.",
			"", "changed or truncated", "port=5432",
		},
		{"28000", "An error occurred while validating the access token. Please acquire a new token and retry", "", "tenant", "entrapg whoami"},
		{"28000", "The access token doesn't have a valid oid claim. Acquire a new token and try again", "", "no object ID", "entrapg whoami"},
		{"28000", "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[ROLE]", "", "user's token", label},
		{"28000", `Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role "ROLE"`, "", "user's token", label},
		{
			"28000",
			"Azure AD user token for role[ROLE] is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.",
			"", "user's role", label,
		},
		{
			"28000",
			`Microsoft Entra user token for role "ROLE" is neither an AAD_AUTH_TOKENTYPE_APP_USER or an AAD_AUTH_TOKENTYPE_APP_OBO token.`,
			"", "user's role", label,
		},
		{
			"28000",
			"Azure AD access token not valid for role ROLE (does not contain group ID 7d2f0c8e-0000-4000-8000-000000000000)",
			"Did you specify the correct user name and access token?", "membership newer than the token",
			"az ad group member check --group 7d2f0c8e-0000-4000-8000-000000000000 --member-id OBJECT_ID",
		},
		{
			"28P01", `password authentication failed for user "ROLE"`, "", "case-sensitive",
			"select * from pgaadauth_create_principal_with_oid('ROLE', 'OBJECT_ID', 'service', false, false);",
		},
		{
			"28000", `no pg_hba.conf entry for host "203.0.113.7", user "ROLE", database "postgres", no encryption`, "",
			"requires TLS", "sslmode=verify-full",
		},
		{
			"28000", `no pg_hba.conf entry for host "203.0.113.7", user "ROLE", database "postgres", SSL encryption`, "",
			"firewall", "show hba_file;",
		},
		{"08P01", "client sent partial pkt in startup phase", "", "PgBouncer", "port=5432"},
		{"08P01", "password authentication failed", "", "PgBouncer", "port=5432"},
		{
			"53300", "sorry, too many clients already", "", "no free connection",
			"select usename, count(*) from pg_stat_activity group by 1 order by 2 desc;",
		},
		{
			"XX000", "something new", "", "",
			"select rolname, rolcanlogin, rolconnlimit, rolvaliduntil from pg_roles where rolname = 'ROLE';",
		},
		{"57P03", "the database system is starting up", "", "again in a minute", "# shows whether the server accepts connections"},
		{"42704", `unrecognized configuration parameter "keepalives"`, "", "remove it", ""},
		{"42501", `permission denied for database "postgres"`, "", "CONNECT", `grant connect on database "postgres" to "ROLE";`},
		{
			"28000",
			`Service principal oid mismatch for role "ROLE". The oid in the security label [7d] does not match ` +
				"the appid [8e] or oid [9f] in the token.",
			"", "another object ID",
			"select * from pgaadauth_update_principal_with_oid('ROLE', 'OBJECT_ID', 'service', false, false);",
		},
	}
	for i, some := range slices.Collect(slices.Chunk(messages, 6)) {
		role := "rejected-" + strconv.Itoa(i)
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			s := ownServer(t)
			app, env := identityWith(t, s, role, true)
			names := strings.NewReplacer("ROLE", role, "OBJECT_ID", app.ObjectID)
			for _, test := range some {
				test.message, test.fix = names.Replace(test.message), names.Replace(test.fix)
				s.SetFaults(entrapgtest.Faults{Reject: &entrapgtest.Rejection{Code: test.code, Message: test.message, Hint: test.hint}})
				last, _ := visit(t, env, command.Failed)
				if last.Step != "login" || last.Status != "failed" {
					t.Errorf("%s: failed at %s", test.message, last.Step)
				}
				if !strings.Contains(last.Error, test.message) || !strings.Contains(last.Error, test.code) ||
					!strings.Contains(last.Error, test.hint) {
					t.Errorf("%s: the server's own words are %q", test.message, last.Error)
				}
				if !strings.Contains(last.Explanation, test.means) {
					t.Errorf("%s means %q, want %q in it", test.message, last.Explanation, test.means)
				}
				if test.fix != "" && !slices.Contains(last.Fix, test.fix) {
					t.Errorf("%s is fixed by %q, want %q", test.message, last.Fix, test.fix)
				}
			}
		})
	}
}

func TestDoctor_FindsFaultInDSNCredentialAndRole(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "it's me", true)
	unmapped, stranger := identityWith(t, s, "no-role", false)
	with := func(env []string, more ...string) []string { return append(slices.Clone(env), more...) }
	linux := func(more ...string) []string {
		return append(more, "SSL_CERT_FILE="+s.CAFile(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential", "DATABASE_URL="+s.DSN())
	}
	nobody := s.Tenant.NewServicePrincipal("nameless")
	nobody.Claims = map[string]any{"app_displayname": nil, "appid": nil} // before the tenant is used again
	service := s.Tenant.NewServicePrincipal("deployer")
	passwords := write(t, ".pgpass", "*:*:*:postgres:hunter2\n")
	guest := s.Tenant.NewServicePrincipal("guest") // a separate process cannot log in as a user
	guest.Claims = map[string]any{
		"idtyp": nil, "appidacr": nil, "app_displayname": nil, "idp": "live.com", "scp": "x", "unique_name": "live.com#bob@outlook.example",
	}

	for name, test := range map[string]struct {
		env            []string
		args           []string
		step           string
		printed, means string
		fix            string
	}{
		"sslmode=prefer":  {env, []string{s.DSN() + "&sslmode=prefer"}, "DSN", "sslmode: prefer can fall back", "", ""},
		"a password":      {env, []string{"postgres://bob:hunter2@h/d"}, "DSN", "password", "", ""},
		"missing CA file": {env, []string{"host=h sslrootcert=/nowhere/ca.pem"}, "DSN", "/nowhere/ca.pem", "", ""},
		"no identity": {
			[]string{"DATABASE_URL=" + s.DSN(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential"},
			nil, "credential",
			"missing environment variable AZURE_TENANT_ID", "found an identity", "az login",
		},
		"an identity of another host": {
			with(env, "AZURE_CLIENT_ID=11111111-2222-3333-4444-555555555555"), nil, "credential", "No User Assigned",
			"AZURE_CLIENT_ID", "az identity list --query '[].{name:name,clientId:clientId}' --output table",
		},
		"an empty client ID": {
			with(env, "AZURE_CLIENT_ID="), nil, "credential", "UserAssignedClientID", "set to an empty value",
			"unset AZURE_CLIENT_ID",
		},
		"an endpoint without secret": {
			with(env, "IDENTITY_HEADER="), nil, "credential", "ManagedIdentityCredential", "IDENTITY_HEADER is not set",
			"export IDENTITY_HEADER=HEADER",
		},
		"a wrong secret": {
			linux(with(service.Environ(), "AZURE_CLIENT_SECRET=guess-4711")...), nil, "credential", "AADSTS7000215",
			"secret is wrong", "az ad app credential reset --append --id " + service.ClientID,
		},
		"the same, in no chain": {
			linux(with(service.Environ(), "AZURE_CLIENT_SECRET=guess-4711")...),
			[]string{s.DSN() + "&entra_credential=environment"},
			"credential", "AADSTS7000215", "secret is wrong",
			"az ad app credential reset --append --id " + service.ClientID,
		},
		"another tenant": {
			linux(with(service.Environ(), "AZURE_TENANT_ID=99999999-2222-3333-4444-555555555555")...), nil, "credential",
			"AADSTS90002", "no such tenant", "az account show --query tenantId --output tsv",
		},
		"Entra's certificate": {
			with(service.Environ(), "SSL_CERT_FILE=/nowhere", "DATABASE_URL="+s.DSN(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential"),
			nil, "credential", "certificate", "proxy", "apt-get update && apt-get install -y ca-certificates",
		},
		"a token without a user name": {linux(nobody.Environ()...), nil, "user", "no PostgreSQL user", "set user in the DSN", "user=ROLE"},
		"no role": {
			stranger, nil, "login", "requested scram-sha-256", "not mapped to Entra",
			"select * from pgaadauth_create_principal_with_oid('no-role', '" + unmapped.ObjectID + "', 'service', false, false);",
		},
		"a user of Single Server": {
			with(stranger, "PGUSER=no-role@shop"), nil, "login", "requested scram-sha-256", "Single Server",
			"export PGUSER=no-role",
		},
		"a guest's mail address": {
			linux(guest.Environ()...), nil, "login", "requested scram-sha-256", "#EXT#",
			"select * from pgaadauth_list_principals(false);",
		},
		"no scope of Entra": {
			linux(service.Environ()...),
			[]string{s.DSN() + "&entra_scope=https://vault.azure.net"},
			"credential", "AADSTS70011",
			"/.default", "entra_scope=https://ossrdbms-aad.database.windows.net/.default",
		},
		"somebody else's role": {
			with(stranger, "PGUSER=it's me"), nil, "login", "Service principal oid mismatch", "user is \"it's me\", from PGUSER",
			"export PGUSER=no-role",
		},
		"no database": {
			env,
			[]string{strings.Replace(s.DSN(), "/postgres?", "/shop?", 1)},
			"login", `database "shop" does not exist`,
			"does not exist; create it", `create database "shop" owner "it's me";`,
		},
		"an option without a value": {
			env,
			[]string{s.DSN() + "&options=-c%20foo"},
			"login", "-c foo requires a value", "rejects the value of a parameter",
			"# in the DSN: remove options",
		},
		"an unknown option": {
			env,
			[]string{s.DSN() + "&options=-Q"},
			"login", "invalid command-line argument", "rejects the value of a parameter",
			"# in the DSN: remove options",
		},
		"an unknown time zone": {
			env,
			[]string{s.DSN() + "&timezone=Nowhere"},
			"login", `"TimeZone"`, "rejects the value of a parameter",
			"# in the DSN: remove timezone",
		},
		"a parameter of superusers": {
			env,
			[]string{s.DSN() + "&log_statement=all"},
			"login", "permission denied to set parameter",
			"rejects the value of a parameter", "# in the DSN: remove log_statement",
		},
		"a parameter of the start": {
			env,
			[]string{s.DSN() + "&max_connections=10"},
			"login", "cannot be changed", "rejects the value of a parameter",
			"# in the DSN: remove max_connections",
		},
		"a wrong password, in a file": {
			[]string{"PGPASSFILE=" + passwords},
			[]string{s.DSN() + "&entra_credential=none&user=postgres"},
			"login",
			"password authentication failed", "the password is that of " + passwords + ", from PGPASSFILE", "",
		},
		"no password": {
			[]string{"PGPASSFILE=/nowhere"},
			[]string{s.DSN() + "&entra_credential=none&user=postgres"},
			"login",
			"password authentication failed", "no password is set", "password=PASSWORD",
		},
		"a wrong password": {
			nil,
			[]string{s.DSN() + "&entra_credential=none&user=postgres&password=wrong"},
			"login",
			"password authentication failed", "check the password", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needsCAVariable(t, test.env)
			last, _ := visit(t, test.env, command.Failed, test.args...)
			if last.Step != test.step || last.Status != "failed" || !strings.Contains(last.Error, test.printed) ||
				!strings.Contains(last.Explanation, test.means) {
				t.Errorf("got %+v\nwant %s: %q, %q", last, test.step, test.printed, test.means)
			}
			if test.fix != "" && !slices.Contains(last.Fix, test.fix) {
				t.Errorf("fix %q, want %q", last.Fix, test.fix)
			}
			if strings.Contains(last.Error, "-----") || strings.Contains(last.Error, "{") {
				t.Errorf("the error contains the raw response:\n%s", last.Error)
			}
			if strings.Contains(last.Error, "hunter2") {
				t.Error("the output contains a password")
			}
		})
	}
}

// A fake is a server that handles each connection with the same function.
func fake(t *testing.T, serve func(net.Conn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// withCertificate serves TLS as PostgreSQL does, with a certificate of a new
// authority, and returns the path of the authority's certificate.
func withCertificate(t *testing.T, change func(*x509.Certificate)) (port, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corner Shop Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: []string{"localhost"}}
	change(leaf)
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: key}}}
	return fake(t, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil {
			conn.Write([]byte("S"))
			tls.Server(conn, config).Handshake()
		}
	}), caFile
}

func TestDoctor_FindsFaultInNetworkAndTLS(t *testing.T) {
	t.Parallel()
	const closed = "1" // no server listens on it
	cut := fake(t, func(net.Conn) {})
	plain := fake(t, func(conn net.Conn) { io.ReadFull(conn, make([]byte, 8)); conn.Write([]byte("N")) })
	web := fake(t, func(conn net.Conn) { io.ReadFull(conn, make([]byte, 8)); conn.Write([]byte("HTTP/1.1 400\r\n\r\n")) })
	unknown, _ := withCertificate(t, func(*x509.Certificate) {})
	named, namedCA := withCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"db.corner.example"} })
	expired, expiredCA := withCertificate(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-24 * time.Hour) })
	other, _ := withCertificate(t, func(*x509.Certificate) {})
	foreign, _ := withCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"db.corner.example"} })

	for name, test := range map[string]struct {
		dsn, step      string
		printed, means string
		fix            string
	}{
		"no such host": {
			"host=no-such-host.invalid connect_timeout=5", "DNS", "no-such-host.invalid", "name",
			"nslookup no-such-host.invalid",
		},
		"refused": {
			"host=localhost port=" + closed, "TCP", "refused", "nothing listens on port " + closed,
			"pg_isready -h localhost -p " + closed,
		},
		"a socket": {
			"host=/nowhere sslmode=disable", "TCP", "/nowhere", "no server listens on this socket", "ls -d /nowhere/.s.PGSQL.*",
		},
		"cut":             {"host=127.0.0.1 port=" + cut, "TLS", "", "closed the connection at once", "port=5432"},
		"no TLS":          {"host=127.0.0.1 port=" + plain, "TLS", "does not support TLS", "turn on TLS", "alter system set ssl = on;"},
		"no PostgreSQL":   {"host=127.0.0.1 port=" + web, "TLS", `"H"`, "not PostgreSQL", "pg_isready -h 127.0.0.1 -p " + web},
		"an unknown root": {"host=localhost port=" + unknown, "TLS", "unknown authority", "Corner Shop Root", ""},
		"another root file": {
			"host=localhost port=" + other + " " + quote.DSNSetting(false, "sslrootcert", namedCA), "TLS", "",
			"not in " + namedCA, "",
		},
		"under verify-ca": {
			"host=localhost sslmode=verify-ca port=" + other + " " + quote.DSNSetting(false, "sslrootcert", namedCA), "TLS",
			"unknown authority", "not in " + namedCA, "",
		},
		"a wrong name": {
			"host=localhost port=" + named + " " + quote.DSNSetting(false, "sslrootcert", namedCA), "TLS", "db.corner.example",
			"the certificate is for db.corner.example, and not for localhost", "host=db.corner.example",
		},
		"a wrong name, and an unknown root": {
			"host=localhost port=" + foreign, "TLS", "db.corner.example", "do not use the names in this certificate",
			"openssl s_client -starttls postgres -connect localhost:" + foreign + " </dev/null | openssl x509 -noout -fingerprint -sha256",
		},
		"expired": {
			"host=localhost port=" + expired + " " + quote.DSNSetting(false, "sslrootcert", expiredCA), "TLS", "expired",
			"needs a new certificate", "date -u",
		},
		"two, both refused": {"host=localhost,127.0.0.1 port=" + closed, "TCP", "refused", "nothing listens", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			last, _ := visit(t, nil, command.Failed, test.dsn)
			if last.Step != test.step || last.Status != "failed" || !strings.Contains(last.Error, test.printed) ||
				!strings.Contains(last.Explanation, test.means) {
				t.Errorf("got %+v\nwant %s: %q, %q", last, test.step, test.printed, test.means)
			}
			if test.fix != "" && !slices.Contains(last.Fix, test.fix) {
				t.Errorf("fix %q, want %q", last.Fix, test.fix)
			}
		})
	}
}

func TestDoctor_EndsAtOnceOnSignalWhileServerIsSilent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	for name, answer := range map[string]string{"before TLS": "", "in the TLS handshake": "S"} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			waits := make(chan struct{})
			port := fake(t, func(conn net.Conn) {
				io.ReadFull(conn, make([]byte, 8))
				io.WriteString(conn, answer)
				close(waits)
				io.Copy(io.Discard, conn)
			})
			cmd, out, _ := program(t, "doctor", "host=127.0.0.1 connect_timeout=3600 port="+port)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-waits
			cmd.Process.Signal(signal)
			stuck := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			cmd.Wait()
			stuck.Stop()
			if code := cmd.ProcessState.ExitCode(); code != command.Failed || !strings.Contains(out.String(), "interrupted") {
				t.Errorf("%s, %v: exit code %d\n%s", name, signal, code, out)
			}
		}
	}
}

func TestDoctor_ContinuesIfOneHostIsDown(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "two-hosts", true)
	_, port, _ := net.SplitHostPort(s.Addr())
	_, all := visit(t, env, command.Done, "host=127.0.0.1,127.0.0.1 port=1,"+port+" dbname=postgres "+quote.DSNSetting(false, "sslrootcert", s.CAFile()))
	for _, f := range all {
		if f.Step == "TCP" && (f.Status != "warning" || !strings.Contains(f.Error, "refused")) {
			t.Errorf("%+v", f)
		}
	}
}

func TestDoctor_ShowsMappingAndClockSkew(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	app, env := identityWith(t, s, "mapped", true)
	admin, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	label := "aadauth,oid=" + app.ObjectID + ",type=service"
	// The server sets labels only once an administrator has logged in. Its functions
	// take precedence over others with the same name.
	for _, sql := range []string{
		"set allow_system_table_mods = on",
		"delete from pg_shseclabel where objoid = 'mapped'::regrole and provider = 'pgaadauth'",
		"insert into pg_shseclabel values ('mapped'::regrole, 'pg_authid'::regclass, 'pgaadauth', '" + label + "')",
		"create schema late",
		"create function late.clock_timestamp() returns timestamptz language sql as $$select pg_catalog.clock_timestamp() - interval '1 hour 30 seconds'$$",
		"grant usage on schema late to mapped",
		"alter role mapped set search_path = late, pg_catalog",
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	last, all := visit(t, env, command.Done)
	if server := strings.Join(all[len(all)-2].Found, "\n"); !strings.Contains(server, "mapped is mapped to Entra: "+label) {
		t.Errorf("server: %s", server)
	}
	if last.Step != "clock" || last.Status != "warning" || !strings.Contains(last.Error, "differs from the server's by 1h0m") ||
		!slices.Contains(last.Fix, "sudo timedatectl set-ntp true") {
		t.Errorf("%+v", last)
	}
}

func TestDoctor_ReportsStageWhereLoginEnds(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	_, env := identityWith(t, s, "broken-off", true)
	long, longEnv := identityWith(t, s, "long-token", true)
	long.Claims = map[string]any{"groups": strings.Repeat("x", 2000)}
	s.SetFaults(entrapgtest.Faults{CutLogin: entrapgtest.AfterPassword})
	if last, _ := visit(t, longEnv, command.Failed); last.Step != "login" || !strings.Contains(last.Explanation, "PgBouncer") ||
		!slices.Contains(last.Fix, "port=5432") {
		t.Errorf("a long token: %+v", last)
	}
	for name, test := range map[string]struct {
		faults           entrapgtest.Faults
		step, means, fix string
	}{
		"at once":            {entrapgtest.Faults{CutLogin: entrapgtest.AtConnect}, "TLS", "closed the connection at once", "pg_isready"},
		"after the password": {entrapgtest.Faults{CutLogin: entrapgtest.AfterPassword}, "login", "broke during the login", "pg_isready"},
		"no TLS":             {entrapgtest.Faults{NoTLS: true}, "TLS", "turn on TLS", "alter system set ssl = on;"},
		"Entra fails":        {entrapgtest.Faults{Entra: entrapgtest.EntraReset}, "credential", "check the network", "curl"},
	} {
		s.SetFaults(test.faults)
		if last, _ := visit(t, env, command.Failed); last.Step != test.step || !strings.Contains(last.Explanation, test.means) ||
			!strings.Contains(strings.Join(last.Fix, "\n"), test.fix) {
			t.Errorf("%s: %+v", name, last)
		}
	}
}
