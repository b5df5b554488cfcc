package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/settings"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/internal/connstring"
)

// pasted returns the lines of a fix without comments.
func pasted(fix []string) []string {
	return slices.DeleteFunc(slices.Clone(fix), func(line string) bool { return strings.HasPrefix(line, "--") || strings.HasPrefix(line, "#") })
}

// A failing is a login that fails until a fix is pasted.
type failing struct {
	env []string // with DATABASE_URL
	db  *sql.DB  // of an Entra administrator, in the database postgres
}

var (
	assignment = regexp.MustCompile(`^export (\w+)=`)
	parameter  = regexp.MustCompile(`^[a-z_]+=`)
	removal    = regexp.MustCompile(`^# in DATABASE_URL: remove (\w+)$`)
)

// paste applies a line of a fix: it exports a variable, adds a setting to the DSN,
// or runs SQL as the administrator.
func (f *failing) paste(t *testing.T, line string) {
	t.Helper()
	switch {
	case assignment.MatchString(line):
		name := assignment.FindStringSubmatch(line)[1]
		value, err := exec.CommandContext(t.Context(), "sh", "-c", line+`; printf %s "$`+name+`"`).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		f.env = append(f.env, name+"="+string(value))
	case removal.MatchString(line):
		key := removal.FindStringSubmatch(line)[1]
		f.env = append(f.env, "DATABASE_URL="+regexp.MustCompile(`(\s|&)`+key+`=[^\s&]*`).ReplaceAllString(f.dsn(), ""))
	case strings.HasPrefix(line, "unset "):
		name := strings.TrimPrefix(line, "unset ")
		f.env = slices.DeleteFunc(f.env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	case parameter.MatchString(line):
		dsn := f.dsn()
		switch {
		case !connstring.IsURL(dsn):
			dsn += " " + line
		case strings.Contains(dsn, "?"):
			dsn += "&" + line
		default:
			dsn += "?" + line
		}
		f.env = append(f.env, "DATABASE_URL="+dsn)
	case strings.HasSuffix(line, ";"):
		if _, err := f.db.ExecContext(t.Context(), line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	default:
		t.Errorf("the fix contains no line to paste: %q", line)
	}
}

func (f *failing) dsn() string {
	for _, entry := range slices.Backward(f.env) {
		if dsn, ok := strings.CutPrefix(entry, "DATABASE_URL="); ok {
			return dsn
		}
	}
	return ""
}

// administrator returns a pool of an Entra administrator of s.
func administrator(t *testing.T, s *entrapgtest.Server) *sql.DB {
	t.Helper()
	admin := s.Tenant.NewUserAssignedIdentity("admin-of-" + strings.ToLower(t.Name()))
	if err := s.CreateAdmin(t.Context(), "", admin); err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(entrapg.NewConnector(s.DSN(), entrapg.WithCredential(admin)))
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// with returns env with another DSN.
func with(env []string, dsn string, more ...string) []string {
	return append(append(slices.Clone(env), "DATABASE_URL="+dsn), more...)
}

// The fix maps a role that is not mapped, or mapped to another object, to the
// identity of the token.
func TestDoctor_RoleIsMappedOnceFixIsPasted(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	db := administrator(t, s)
	for name, test := range map[string]struct {
		setUp func(name string) error
		error string
		fix   string
	}{
		"identity was created again": {
			func(name string) error {
				return s.CreateRole(t.Context(), "", s.Tenant.NewUserAssignedIdentity(name))
			}, "oid mismatch", "select * from pgaadauth_update_principal_with_oid(",
		},
		"role is that of a person": {
			func(name string) error {
				return s.CreateRole(t.Context(), name, s.Tenant.NewUser(name+"@contoso.example"))
			}, "is neither", "security label",
		},
		"role is one of PostgreSQL": {
			func(name string) error {
				_, err := db.ExecContext(t.Context(), `create role "`+name+`" login`)
				return err
			}, "scram-sha-256", "security label",
		},
		"role does not exist": {func(string) error { return nil }, "scram-sha-256", "select * from pgaadauth_create_principal_with_oid("},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := test.setUp(name); err != nil {
				t.Fatal(err)
			}
			_, env := identityWith(t, s, name, false)
			last, _ := visit(t, env, command.Failed)
			i := slices.IndexFunc(last.Fix, func(line string) bool { return strings.HasPrefix(line, test.fix) })
			if last.Step != "login" || !strings.Contains(last.Error, test.error) || i < 0 {
				t.Fatalf("got %+v, want %q", last, test.fix)
			}
			(&failing{env: env, db: db}).paste(t, last.Fix[i])
			if r := runAs(t, env, "doctor"); r.code != command.Done {
				t.Errorf("after %q:\n%s", last.Fix[i], r.stdout)
			}
		})
	}
}

// PostgreSQL itself rejects these logins after the token is accepted.
func TestDoctor_LimitIsRaisedOnceFixIsPasted(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	db := administrator(t, s)
	for i, test := range []struct{ limit, explanation, fix string }{
		{`alter role "ROLE" nologin;`, "NOLOGIN", `alter role "ROLE" login;`},
		{`alter role "ROLE" connection limit 0;`, "as many connections as its limit", `alter role "ROLE" connection limit -1;`},
		{`alter database "ROLE" connection limit 0;`, "as many connections as its limit", `alter database "ROLE" connection limit -1;`},
		{`alter database "ROLE" allow_connections false;`, "does not allow connections", `alter database "ROLE" allow_connections true;`},
	} {
		t.Run(test.fix, func(t *testing.T) {
			t.Parallel()
			role := fmt.Sprintf("limit %d", i)
			_, env := identityWith(t, s, role, true)
			f := &failing{env: with(env, s.DSN("dbname="+role)), db: db}
			f.paste(t, `create database "`+role+`";`)
			f.paste(t, strings.ReplaceAll(test.limit, "ROLE", role))
			last, _ := visit(t, f.env, command.Failed)
			fix := strings.ReplaceAll(test.fix, "ROLE", role)
			if last.Step != "login" || !strings.Contains(last.Explanation, test.explanation) ||
				!slices.Equal(pasted(last.Fix), []string{fix}) {
				t.Fatalf("got %+v, want %s", last, fix)
			}
			f.paste(t, fix)
			if r := runAs(t, f.env, "doctor"); r.code != command.Done {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestDoctor_ConnectsOnceFixIsPasted(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	f := &failing{db: administrator(t, s)}
	for _, line := range []string{`create database "fix private";`, `revoke connect on database "fix private" from public;`} {
		f.paste(t, line)
	}
	_, env := identityWith(t, s, "may connect", true)
	f.env = with(env, strings.Replace(s.DSN(), "/postgres?", "/fix%20private?", 1))
	last, _ := visit(t, f.env, command.Failed)
	if last.Step != "login" || !slices.Equal(pasted(last.Fix), []string{`grant connect on database "fix private" to "may connect";`}) {
		t.Fatalf("got %+v", last)
	}
	f.paste(t, pasted(last.Fix)[0])
	if r := runAs(t, f.env, "doctor"); r.code != command.Done {
		t.Errorf("%+v", r)
	}
}

// After the fix is pasted, the login works.
func TestDoctor_LoginWorksOnceFixIsPasted(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	db := administrator(t, s)
	app, env := identityWith(t, s, "fix-app", true)
	owner, _ := identityWith(t, s, "fix-owner", true)
	_, roleless := identityWith(t, s, "fix roleless's", false)
	host := s.Tenant.NewHost(app, owner).Environ()
	managed := slices.Concat(host, []string{"SSL_CERT_FILE=" + s.CAFile()})
	dsn, port := s.DSN(), portOf(t, s)
	keywords := "host=127.0.0.1 port=" + port + " dbname=postgres " + quote.DSNSetting(false, "sslrootcert", s.CAFile())
	environment := append(slices.Clone(env), "DATABASE_URL=", "PGHOST=127.0.0.1", "PGPORT="+port, "PGSSLROOTCERT="+s.CAFile())
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[shop]\nuser=fix-ap\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	withUser := func(user string) string { return dsn + "&user=" + user }

	for name, test := range map[string]struct {
		env         []string
		step        string
		explanation string
		fix         []string // the lines to paste, in their order; CLIENT_ID stands for that of app
		origin      string   // named in the explanation
	}{
		"database is missing": {
			with(env, strings.Replace(dsn, "/postgres?", "/fix_shop?", 1)), "login", `the database "fix_shop", from DATABASE_URL, does not exist`,
			[]string{`grant "fix-app" to current_user;`, `create database "fix_shop" owner "fix-app";`},
			"",
		},
		"database with upper case is missing": {
			with(env, keywords+" dbname=Postgres"), "login", "names are case-sensitive. The server has ",
			[]string{`grant "fix-app" to current_user;`, `create database "Postgres" owner "fix-app";`},
			"",
		},
		"no database in a URL": {
			with(env, strings.Replace(dsn, "/postgres?", "?", 1)), "login", "no database is set", []string{"dbname=postgres"}, "DATABASE_URL",
		},
		"no database in settings": {
			with(env, strings.Replace(keywords, "dbname=postgres", "", 1)), "login", "no database is set", []string{"dbname=postgres"}, "",
		},
		"no database in variables": {environment, "login", "no database is set", []string{"export PGDATABASE=postgres"}, ""},
		"user is mapped to another identity": {
			with(env, withUser("fix-owner")), "login", `managed identity "fix-app" (object ID ` + app.ObjectID + `), and user is "fix-owner", from DATABASE_URL. The login as "fix-app" works`,
			[]string{"user=fix-app"},
			"DATABASE_URL: remove user",
		},
		"user of a variable is mapped to another identity": {
			with(env, dsn, "PGUSER=fix-owner"), "login", `from PGUSER`, []string{"export PGUSER=fix-app"}, "in the environment",
		},
		"user of a service is misspelled": {
			with(env, dsn, "PGSERVICE=shop", "PGSERVICEFILE="+services), "login", "from service shop in " + services, nil, "service shop in " + services,
		},
		"user is misspelled": {
			with(env, withUser("fix-ap")), "login", `The login as "fix-app" works`, []string{"user=fix-app"}, "DATABASE_URL",
		},
		"user is in the wrong case": {
			with(env, withUser("Fix-App")), "login", "names are case-sensitive", []string{"user=fix-app"}, "DATABASE_URL",
		},
		"user, in settings": {
			with(env, keywords+" user='Fix App'"), "login", `The login as "fix-app" works`, []string{"user=fix-app"}, "",
		},
		"identity has no role": {
			roleless, "login", "not mapped", []string{"select * from pgaadauth_create_principal_with_oid('fix roleless''s', "}, "",
		},
		"wrong entra_client_id": {
			with(managed, dsn+"&entra_credential=managedidentity&entra_client_id=11111111-2222-3333-4444-555555555555"), "credential",
			"set entra_client_id to",
			[]string{"entra_client_id=CLIENT_ID"},
			"",
		},
		"no entra_client_id": {
			with(managed, dsn+"&entra_credential=managedidentity"), "credential", "set entra_client_id to", []string{"entra_client_id=CLIENT_ID"}, "",
		},
		"entra_client_id is a name": {
			with(managed, dsn+"&entra_credential=managedidentity&entra_client_id=fix-app"), "DSN", "", []string{"entra_client_id=CLIENT_ID"}, "",
		},
		"wrong AZURE_CLIENT_ID": {
			with(env, dsn, "AZURE_CLIENT_ID=11111111-2222-3333-4444-555555555555"), "credential",
			"set AZURE_CLIENT_ID to",
			[]string{"export AZURE_CLIENT_ID=CLIENT_ID"},
			"",
		},
		"target_session_attrs": {
			with(env, dsn+"&target_session_attrs=standby"), "login", "127.0.0.1:" + port + " (127.0.0.1) is a primary; target_session_attrs is standby, from DATABASE_URL",
			[]string{"target_session_attrs=any"},
			"",
		},
		"target_session_attrs of a variable": {
			with(env, strings.Replace(keywords, "host=127.0.0.1", "host=127.0.0.1,localhost", 1), "PGTARGETSESSIONATTRS=read-only"), "login",
			"127.0.0.1:" + port + " (127.0.0.1) is read-write, 127.0.0.1:" + port + " (localhost) is read-write",
			[]string{"export PGTARGETSESSIONATTRS=any"},
			"",
		},
		"misspelled sslmode":   {with(env, keywords+" sslmode=verifyfull"), "DSN", "", []string{"sslmode=verify-full"}, ""},
		"misspelled PGSSLMODE": {with(env, keywords, "PGSSLMODE=verify_ca"), "DSN", "", []string{"export PGSSLMODE=verify-ca"}, ""},
		"sslmode=prefer":       {with(env, keywords+" sslmode=prefer"), "DSN", "", []string{"sslmode=verify-full"}, ""},
		"misspelled credential": {
			with(env, dsn+"&entra_credential=managed-identity"), "DSN", "",
			[]string{"entra_credential=managedidentity", "entra_client_id=CLIENT_ID"},
			"",
		},
		"workload identity, no pod": {
			with(env, dsn+"&entra_credential=workloadidentity"), "credential", "AZURE_FEDERATED_TOKEN_FILE",
			[]string{"entra_credential=default"},
			"kubectl get pod POD",
		},
		"key with a typo": {
			with(env, dsn+"&keepalive=1"), "login", "remove it",
			[]string{"# in DATABASE_URL: remove keepalive", "keepalives=1"},
			"",
		},
		"key of entrapg with a typo": {
			with(managed, keywords+" entra_credential=managedidentity entra_clientid="+app.ClientID), "DSN", "",
			[]string{"# in DATABASE_URL: remove entra_clientid", "entra_client_id=" + app.ClientID},
			"",
		},
		"key of another driver": {
			with(env, dsn+"&username=fix-app"), "DSN", "", []string{"# in DATABASE_URL: remove username", "user=fix-app"}, "",
		},
		"ssl of another driver": {with(env, keywords+" ssl=1"), "DSN", "", []string{"# in DATABASE_URL: remove ssl", "sslmode=verify-full"}, ""},
		"key in upper case": {
			with(env, keywords+" DBName=postgres"), "DSN", "",
			[]string{"# in DATABASE_URL: remove DBName", "dbname=postgres"},
			"",
		},
		"client ID for default": {
			with(env, dsn+"&entra_client_id="+app.ClientID, "AZURE_CLIENT_ID="), "DSN", "",
			[]string{"# in DATABASE_URL: remove entra_client_id", "export AZURE_CLIENT_ID=" + app.ClientID},
			"or, for a managed identity",
		},
		"user with a newline": {with(env, dsn, "PGUSER=fix-app\n"), "DSN", "", []string{"export PGUSER=fix-app"}, ""},
		"port is a word":      {with(env, dsn, "PGPORT=x", "DATABASE_URL=host=127.0.0.1"), "DSN", "", nil, "export PGPORT=5432"},
		"timeout with a unit": {with(env, dsn+"&connect_timeout=20s"), "DSN", "", []string{"connect_timeout=20"}, ""},
		"session attributes": {
			with(env, dsn, "PGTARGETSESSIONATTRS=readwrite"), "DSN", "", []string{"export PGTARGETSESSIONATTRS=read-write"}, "",
		},
		"token is for another service": {
			with(env, dsn+"&entra_scope=https://vault.azure.net/.default"), "login", "another service", []string{"entra_scope=https://ossrdbms-aad.database.windows.net/.default"}, "",
		},
		"port of PgBouncer": {
			with(env, strings.Replace(dsn, ":"+port, ":1", 1)), "TCP", "nothing listens on port 1", nil, "pg_isready -h 127.0.0.1 -p 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needsCAVariable(t, test.env)
			last, _ := visit(t, test.env, command.Failed)
			if last.Step != test.step || !strings.Contains(last.Explanation, test.explanation) {
				t.Fatalf("got %+v\nwant %s: %q", last, test.step, test.explanation)
			}
			if !strings.Contains(strings.Join(last.Fix, "\n"), test.origin) {
				t.Errorf("%q is not in %q", test.origin, last.Fix)
			}
			f, lines := &failing{env: slices.Clone(test.env), db: db}, last.Fix
			for _, want := range test.fix {
				i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) })
				if i < 0 && want == "entra_client_id=CLIENT_ID" {
					lines, i = []string{want}, 0 // the credential needs it too
				}
				if i < 0 {
					t.Fatalf("fix %q, want %q", last.Fix, want)
				}
				f.paste(t, strings.Replace(lines[i], "=CLIENT_ID", "="+app.ClientID, 1))
			}
			if len(test.fix) == 0 {
				return
			}
			if r := runAs(t, f.env, "doctor"); r.code != command.Done {
				t.Errorf("after pasting %q into %q:\n%s%s", test.fix, test.env, r.stdout, r.stderr)
			}
		})
	}
}

// Tests cannot run these fixes, which consist of one line.
func TestDoctor_NamesMissingSettingsOfEachCredential(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	app, env := identityWith(t, s, "lacking", true)
	dsn := s.DSN()
	for name, test := range map[string]struct {
		env         []string
		step        string
		explanation string
		fix         string
	}{
		"stale IDENTITY_HEADER": {
			with(env, dsn, "IDENTITY_HEADER=old"), "credential", "rejects IDENTITY_HEADER", "set -a; . FILE; set +a",
		},
		"stale IDENTITY_HEADER, alone": {
			with(env, dsn+"&entra_credential=managedidentity&entra_client_id="+app.ClientID, "IDENTITY_HEADER=old"),
			"credential", "reload the environment", "set -a; . FILE; set +a",
		},
		"stale IDENTITY_ENDPOINT": {
			with(env, dsn, "IDENTITY_ENDPOINT=http://127.0.0.1:1/msi/token"), "credential",
			"nothing answers at the managed identity endpoint", "set -a; . FILE; set +a",
		},
		"az is missing":  {with(env, dsn+"&entra_credential=azurecli"), "credential", "not installed", "az login"},
		"azd is missing": {with(env, dsn+"&entra_credential=azuredevelopercli"), "credential", "not installed", "azd auth login"},
		"PowerShell is missing": {
			with(env, dsn+"&entra_credential=azurepowershell"), "credential", "not installed",
			"Install-Module Az.Accounts; Connect-AzAccount",
		},
		"no variables": {
			with(env, dsn+"&entra_credential=environment", "AZURE_CLIENT_ID="), "credential", "needs AZURE_TENANT_ID",
			"export AZURE_CLIENT_SECRET=SECRET",
		},
		"unknown key like no other": {with(env, dsn+"&flavor=red"), "login", "remove it", "# in DATABASE_URL: remove flavor"},
		"password with a typo":      {with(env, dsn+"&pasword=hunter2"), "login", "remove it", "# in DATABASE_URL: remove pasword"},
		"DSN of JDBC": {
			with(env, "jdbc:postgresql://127.0.0.1/shop?user=bob&password=hunter2"), "DSN", "",
			"postgres://SERVER.postgres.database.azure.com/DATABASE",
		},
		"password":                {with(env, "postgres://bob:hunter2@127.0.0.1/postgres"), "DSN", "", "# in DATABASE_URL: remove password"},
		"user with an @ in a URL": {with(env, "postgres://alice@contoso.example@127.0.0.1/postgres"), "DSN", "", "alice%40contoso.example"},
		"missing file": {
			with(env, "host=127.0.0.1 sslrootcert=/nowhere/ca.pem"), "DSN", "", "# in DATABASE_URL: remove sslrootcert",
		},
		"path of Windows": {
			with(env, `host=127.0.0.1 sslrootcert=C:\Users\me\ca.pem`), "DSN", "", `sslrootcert='C:\\Users\\me\\ca.pem'`,
		},
		"path of Windows, quoted": {
			with(env, `host=127.0.0.1 sslrootcert='C:\Program Files\ca.pem'`), "DSN", "",
			`sslrootcert='C:\\Program Files\\ca.pem'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			last, _ := visit(t, append(test.env, "PATH="), command.Failed)
			if last.Step != test.step || !strings.Contains(last.Explanation, test.explanation) || !slices.Contains(last.Fix, test.fix) {
				t.Errorf("got %+v\nwant %s: %q and %q", last, test.step, test.explanation, test.fix)
			}
			if strings.Contains(strings.Join(last.Fix, "\n")+last.Error, "hunter2") {
				t.Error("the output contains the password")
			}
		})
	}
}

func TestDoctor_IdentityEndpointIsNotReachedThroughProxy(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "behind-proxy", true)
	const proxy = "http://bob:hunter2@127.0.0.1:9"
	_, all := visit(t, append(env, "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy), command.Done)
	text := strings.Join(all[0].Found, "\n")
	if !strings.Contains(text, "HTTP_PROXY=") || strings.Contains(text, "hunter2") {
		t.Errorf("got %s", text)
	}
}

func TestDoctor_ExplainsWhenTokenContainsNewMembership(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	group := s.Tenant.NewGroup("members")
	if err := s.CreateRole(t.Context(), "", group); err != nil {
		t.Fatal(err)
	}
	app, env := identityWith(t, s, "member", false)
	db := administrator(t, s)
	service := s.Tenant.NewServicePrincipal("service-member")
	certified := append(service.Environ(), "SSL_CERT_FILE="+s.CAFile(), "AZURE_TOKEN_CREDENTIALS=EnvironmentCredential")
	dsn := s.DSN() + "&user=members"

	last, _ := visit(t, with(env, dsn), command.Failed)
	shown := regexp.MustCompile(`Azure returns the same one until it expires at ([-\d]+ [:\d]+ UTC)`).FindStringSubmatch(last.Explanation)
	if shown == nil || strings.Contains(strings.Join(last.Fix, "\n"), "az login") {
		t.Fatalf("got %+v", last)
	}
	expiry, err := time.Parse("2006-01-02 15:04 MST", shown[1])
	if now := time.Now(); err != nil || expiry.Before(now) || expiry.After(now.Add(time.Hour)) {
		t.Errorf("the token expires at %v, %v", shown[1], err)
	}
	f := &failing{env: with(env, dsn), db: db}
	for _, line := range pasted(last.Fix)[1:] { // after the check of the membership
		f.paste(t, line)
	}
	if r := runAs(t, f.env, "doctor"); r.code != command.Done {
		t.Errorf("after %q: %+v", last.Fix, r)
	}
	needsCAVariable(t, certified)
	if last, _ := visit(t, with(certified, dsn), command.Failed); !strings.Contains(last.Explanation, "which each new process requests") ||
		!slices.Contains(last.Fix, "az ad group member check --group "+group.ObjectID+" --member-id "+service.ObjectID) {
		t.Errorf("got %+v", last)
	}
	_ = app
}

func parsed(t *testing.T, dsn string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestDoctor_AcceptsPlaintextOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	// The PostgreSQL behind the server has no TLS, and a socket instead of a port.
	local := parsed(t, azureServer(t).AdminDSN())
	port := fake(t, func(conn net.Conn) {
		network, address := pgconn.NetworkAddress(local.Host, local.Port)
		server, err := new(net.Dialer).DialContext(t.Context(), network, address)
		if err != nil {
			return
		}
		defer server.Close()
		go func() { io.Copy(server, conn); server.Close() }()
		io.Copy(conn, server)
	})
	plain := "host=127.0.0.1 port=" + port + " user=" + local.User + " password=" + local.Password + " dbname=postgres entra_credential=none"
	last, _ := visit(t, []string{"DATABASE_URL=" + plain}, command.Failed)
	if last.Step != "TLS" || !strings.Contains(last.Explanation, "on this machine") ||
		!slices.Equal(pasted(last.Fix), []string{"sslmode=disable"}) {
		t.Fatalf("got %+v", last)
	}
	f := &failing{env: []string{"DATABASE_URL=" + plain}}
	f.paste(t, "sslmode=disable")
	if r := runAs(t, f.env, "doctor"); r.code != command.Done {
		t.Errorf("%+v", r)
	}
	s.SetFaults(entrapgtest.Faults{NoTLS: true})
	_, env := identityWith(t, s, "no-tls", true)
	if last, _ := visit(t, env, command.Failed); !strings.Contains(last.Explanation, "if this is not a tunnel") ||
		!slices.Contains(last.Fix, "alter system set ssl = on;") {
		t.Errorf("got %+v", last)
	}
}

// azureCLI returns an environment in which the Azure CLI is logged in as p.
func azureCLI(t *testing.T, s *entrapgtest.Server, p *entrapgtest.Principal) []string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the Azure CLI of this test is a shell script")
	}
	token, err := p.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{publicScope}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
echo '{"accessToken":"%s","expiresOn":"%s","expires_on":%d}'
`, token.Token, token.ExpiresOn.Local().Format("2006-01-02 15:04:05.999999"), token.ExpiresOn.Unix())
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + dir, "AZURE_TOKEN_CREDENTIALS=AzureCLICredential", "DATABASE_URL=" + s.DSN()}
}

func TestDoctor_ExplainsTokenOfUser(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	alice := s.Tenant.NewUser("alice-of-doctor@contoso.example")
	group := s.Tenant.NewGroup("not hers")
	for _, p := range []*entrapgtest.Principal{alice, group} {
		if err := s.CreateRole(t.Context(), "", p); err != nil {
			t.Fatal(err)
		}
	}
	identityWith(t, s, "role-of-service", true)
	env := azureCLI(t, s, alice)
	for user, test := range map[string]struct{ explanation, fix, other string }{
		"role-of-service": {
			`The login as "alice-of-doctor@contoso.example" works`, "user=alice-of-doctor%40contoso.example",
			"az logout && az login",
		},
		"Alice-of-doctor%40contoso.example": {
			`names are case-sensitive. The login as "alice-of-doctor@contoso.example" works`, "user=alice-of-doctor%40contoso.example", "",
		},
		"not%20hers": {"shows after a new login", "", "az logout && az login"},
	} {
		f := &failing{env: with(env, s.DSN()+"&user="+user)}
		last, _ := visit(t, f.env, command.Failed)
		if last.Step != "login" || !strings.Contains(last.Explanation, test.explanation) ||
			!strings.Contains(last.Explanation, "the token belongs to the user ") ||
			slices.Contains(last.Fix, "az logout && az login") != (test.other != "") {
			t.Errorf("%s: got %+v", user, last)
		}
		if test.fix == "" {
			continue
		}
		if !slices.Contains(last.Fix, test.fix) {
			t.Fatalf("%s: got %q", user, last.Fix)
		}
		f.paste(t, test.fix)
		if r := runAs(t, f.env, "doctor"); r.code != command.Done {
			t.Errorf("%s: %+v", user, r)
		}
	}
}

func TestDoctor_OffersRoleOfGroup(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	member := s.Tenant.NewUser("member-of-doctor@contoso.example", s.Tenant.NewGroup("group-without-role"))
	f := &failing{env: with(azureCLI(t, s, member), s.DSN()+"&user=group-without-role"), db: administrator(t, s)}
	last, _ := visit(t, f.env, command.Failed)
	const fix = "select * from pgaadauth_create_principal('group-without-role', false, false);"
	if last.Step != "login" || !slices.Contains(last.Fix, fix) {
		t.Fatalf("got %+v", last)
	}
	f.paste(t, fix)
	if r := runAs(t, f.env, "doctor"); r.code != command.Done {
		t.Errorf("%+v", r)
	}
}

func TestDoctor_NamesRoleOfGuest(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	guest := s.Tenant.NewGuest("bob@fabrikam.example")
	_, domain, _ := strings.Cut(guest.Name, "#EXT#@")
	env := azureCLI(t, s, guest)
	db := administrator(t, s)
	last, all := visit(t, env, command.Failed)
	if last.Step != "login" || !strings.Contains(last.Explanation, "#EXT#") {
		t.Fatalf("got %+v", last)
	}
	if user := all[len(all)-2]; user.Step != "user" || !strings.Contains(strings.Join(user.Found, "\n"), "#EXT#") {
		t.Errorf("got %+v", user)
	}
	f := &failing{env: slices.Clone(env), db: db}
	for _, line := range pasted(last.Fix) {
		if !strings.HasPrefix(line, "az ") {
			f.paste(t, strings.ReplaceAll(line, "TENANT.onmicrosoft.com", domain))
		}
	}
	if last, _ := visit(t, append(slices.Clone(env), "DATABASE_URL="+s.DSN()+"&user=bob_fabrikam.example%23EXT%23%40"+"other.example"), command.Failed); !strings.Contains(
		strings.Join(last.Fix, "\n"),
		"pgaadauth_create_principal_with_oid('bob_fabrikam.example#EXT#@other.example', ",
	) {
		t.Errorf("a role that does not exist: %+v", last)
	}
	if !strings.Contains(f.dsn(), "user=bob_fabrikam.example%23EXT%23%40") {
		t.Errorf("got %s", f.dsn())
	}
	if r := runAs(t, f.env, "doctor"); r.code != command.Done {
		t.Errorf("after %q:\n%s", last.Fix, r.stdout)
	}
	r := runAs(t, env, "whoami", "--json")
	var who identity
	if err := json.Unmarshal([]byte(r.stdout), &who); err != nil || !strings.Contains(who.Note, "bob_fabrikam.example#EXT#@") {
		t.Errorf("%v: %s", err, r.stdout)
	}
	if r := runAs(t, env, "whoami"); !strings.Contains(r.stdout, "#EXT#") {
		t.Errorf("%+v", r)
	}
}

func TestDoctor_ReportsOriginOfSettings(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	app, env := identityWith(t, s, "origins", true)
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[shop]\ndbname=postgres\nconnect_timeout=77\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dsn := "host=127.0.0.1 port=" + portOf(t, s)
	env = append(env, "DATABASE_URL="+dsn, "PGSERVICE=shop", "PGSERVICEFILE="+services, "PGSSLROOTCERT="+s.CAFile())
	for _, test := range []struct {
		args   []string
		source string
	}{{nil, "DATABASE_URL"}, {[]string{dsn}, "argument"}, {[]string{"--dsn", dsn}, "--dsn"}} {
		_, all := visit(t, env, command.Done, test.args...)
		for _, want := range []setting{
			{"host", "127.0.0.1", test.source},
			{"port", portOf(t, s), test.source},
			{"dbname", "postgres", "service shop in " + services},
			{"connect_timeout", "77", "service shop in " + services},
			{"service", "shop", "PGSERVICE"},
			{"sslrootcert", s.CAFile(), "PGSSLROOTCERT"},
			{"sslmode", "verify-full", "default"},
			{"AZURE_CLIENT_ID", app.ClientID, "AZURE_CLIENT_ID"},
			{"IDENTITY_HEADER", "REDACTED", "IDENTITY_HEADER"},
		} {
			if !slices.Contains(all[0].Settings, want) {
				t.Errorf("%+v is not in %+v", want, all[0].Settings)
			}
		}
		text := strings.Join(all[0].Found, "\n")
		for _, want := range []string{test.source + ": host=127.0.0.1 ", "PGSSLROOTCERT: sslrootcert=", "service shop in " + services + ": dbname=postgres"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
	}
	r := runAs(t, append(env, "PGUSER=readers"), "whoami", "--json")
	var who identity
	if err := json.Unmarshal([]byte(r.stdout), &who); err != nil || who.Rule != "PGUSER" || who.Name != "origins" ||
		!slices.Contains(who.Settings, settings.Setting{Name: "user", Value: "readers", Origin: "PGUSER"}) {
		t.Errorf("%v: %s", err, r.stdout)
	}
}

func TestTarget_EmptyDSNIsWrongUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{""}, "the argument is empty; check the variable that it comes from"},
		{[]string{"DATABASE_URL=host=127.0.0.1"}, []string{"--dsn", ""}, "must not be empty"},
		{[]string{"DATABASE_URL="}, nil, "DATABASE_URL is empty"},
		{nil, nil, "missing DSN"},
	} {
		r := runAs(t, test.env, append([]string{"doctor"}, test.args...)...)
		if r.code != command.Misuse || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%q, %q: %+v", test.env, test.args, r)
		}
	}
	_, env := identityWith(t, azureServer(t), "empty-dsn", false)
	if r := runAs(t, append(env, "DATABASE_URL="), "whoami"); r.code != command.Done {
		t.Errorf("%+v", r)
	}
}
