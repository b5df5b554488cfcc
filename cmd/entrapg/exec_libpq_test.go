package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/internal/inspect"
)

// unsetLibpq unsets the variables of libpq that this machine may have set.
func unsetLibpq(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
}

// libpqFor returns libpq's environment for a DSN, and the warnings.
func libpqFor(t *testing.T, dsn string) (env, warnings []string) {
	t.Helper()
	login, warnings, err := openForLibpq(dsn)
	if err != nil {
		t.Errorf("%s: %v", dsn, err)
		return nil, nil
	}
	defer login.Close()
	user := login.Config.User
	if user == "" {
		user = "derived"
	}
	changes, err := libpqVariables(login, &inspect.Token{Value: "secret", User: user})
	if err != nil {
		t.Errorf("%s: %v", dsn, err)
	}
	return environ(nil, changes, false), warnings
}

func inURL(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }

func portOf(t *testing.T, s *entrapgtest.Server) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestLibpq_SetsVariablesFromDSN(t *testing.T) {
	unsetLibpq(t)
	home := t.TempDir() // without a root.crt
	t.Setenv("HOME", home)
	ca := azureServer(t).CAFile()
	services := filepath.ToSlash(filepath.Join(home, "services"))
	if err := os.WriteFile(services, []byte("[shop]\nhost=db.example\nuser=svc\ntarget_session_attrs=read-write\nsslcrl=shop.crl\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct{ dsn, want string }{
		{"postgres://shop.postgres.database.azure.com/shop", "PGHOST=shop.postgres.database.azure.com PGPORT=5432 PGDATABASE=shop PGUSER=derived PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"postgres://shop.postgres.database.azure.com/shop?sslmode=require", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h user=bob port=6543 sslmode=require", "PGHOST=h PGPORT=6543 PGUSER=bob PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h sslmode=verify-ca", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h sslmode=require " + dsnSetting(false, "sslrootcert", ca), "PGSSLMODE=require PGSSLROOTCERT=" + ca},
		{"host=h sslmode=require user=bob password=local entra_credential=none", "PGSSLMODE=require PGSSLROOTCERT="},
		{"host=h sslmode=verify-full " + dsnSetting(false, "sslrootcert", ca), "PGSSLMODE=verify-full PGSSLROOTCERT=" + ca},
		{"host=h sslrootcert=system", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"postgres://127.0.0.1/d?sslmode=disable", "PGSSLMODE=disable PGSSLROOTCERT="},
		{"postgres://a:1,b:2/d?target_session_attrs=any&connect_timeout=7", "PGHOST=a,b PGPORT=1,2 PGTARGETSESSIONATTRS=any PGCONNECT_TIMEOUT=7"},
		{"host=a,a,b hostaddr=192.0.2.1,192.0.2.1,192.0.2.2", "PGHOST=a,a,b PGPORT=5432,5432,5432 PGHOSTADDR=192.0.2.1,192.0.2.1,192.0.2.2"},
		{"host=a,b sslmode=prefer user=bob password=local entra_credential=none", "PGHOST=a,b PGPORT=5432,5432 PGSSLMODE=prefer"},
		{"service=shop " + dsnSetting(false, "servicefile", services), "PGHOST=db.example PGUSER=svc PGTARGETSESSIONATTRS=read-write PGSSLCRL=shop.crl PGSERVICE= PGSERVICEFILE="},
		{"host=h hostaddr=192.0.2.2", "PGHOST=h PGHOSTADDR=192.0.2.2"},
		{"host=h", "PGPASSFILE= PGHOSTADDR= PGGSSENCMODE=disable PGPASSWORD=secret PGREQUIREAUTH=password PGOPTIONS="},
		{"host=h require_auth=oauth,password", "PGREQUIREAUTH=password"},
		{"host=h require_auth=!scram-sha-256,!oauth", "PGREQUIREAUTH=password"},
		{"host=h user=bob password=local entra_credential=none", "PGREQUIREAUTH= PGGSSENCMODE=disable"},
		{"host=h user=bob password=local entra_credential=none require_auth=scram-sha-256 gssencmode=require", "PGREQUIREAUTH=scram-sha-256 PGGSSENCMODE=require"},
		{"host=h.postgres.database.azure.com user=bob password=local entra_credential=none gssencmode=prefer", "PGGSSENCMODE=disable"},
		{"postgres://bob:local@127.0.0.1/d?sslmode=disable&entra_credential=none&pool_max_conns=3", "PGUSER=bob PGSSLMODE=disable PGOPTIONS="},
	} {
		env, _ := libpqFor(t, test.dsn)
		for _, want := range strings.Fields(test.want) {
			name, value, _ := strings.Cut(want, "=")
			set := slices.ContainsFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
			if value != "" && !slices.Contains(env, want) || value == "" && set {
				t.Errorf("%s: want %s in\n%s", test.dsn, want, strings.Join(env, "\n"))
			}
		}
	}
}

// keysOfLibpq are the keys that PQconndefaults lists in PostgreSQL 15 to 18, with
// values that are valid for a login on this machine, and what becomes of each: a
// variable, or ignored.
var keysOfLibpq = []struct{ key, value, want string }{
	{"application_name", "shop", "PGAPPNAME=shop"},
	{"channel_binding", "prefer", "PGCHANNELBINDING=prefer"},
	{"client_encoding", "auto", "PGCLIENTENCODING=auto"},
	{"connect_timeout", "60", "PGCONNECT_TIMEOUT=60"},
	{"fallback_application_name", "shop", ignored},
	{"gssdelegation", "1", "PGGSSDELEGATION=1"},
	{"gssencmode", "prefer", "PGGSSENCMODE=disable"},
	{"gsslib", "gssapi", "PGGSSLIB=gssapi"},
	{"keepalives", "1", ignored},
	{"keepalives_count", "3", ignored},
	{"keepalives_idle", "60", ignored},
	{"keepalives_interval", "10", ignored},
	{"krbsrvname", "pg", "PGKRBSRVNAME=pg"},
	{"load_balance_hosts", "random", "PGLOADBALANCEHOSTS=random"},
	{"max_protocol_version", "3.0", "PGMAXPROTOCOLVERSION=3.0"},
	{"min_protocol_version", "3.0", "PGMINPROTOCOLVERSION=3.0"},
	{"oauth_client_id", "id", ignored},
	{"oauth_client_secret", "hidden", ignored},
	{"oauth_issuer", "https://issuer.example", ignored},
	{"oauth_scope", "openid", ignored},
	{"options", "-c geqo_effort=3", "PGOPTIONS=-c geqo_effort=3"},
	{"passfile", "/nowhere", ""},
	{"replication", "false", ignored},
	{"require_auth", "password", "PGREQUIREAUTH=password"},
	{"requirepeer", "postgres", "PGREQUIREPEER=postgres"},
	{"scram_client_key", "hidden", ignored},
	{"scram_server_key", "hidden", ignored},
	{"ssl_max_protocol_version", "TLSv1.3", "PGSSLMAXPROTOCOLVERSION=TLSv1.3"},
	{"ssl_min_protocol_version", "TLSv1.2", "PGSSLMINPROTOCOLVERSION=TLSv1.2"},
	{"sslcertmode", "allow", "PGSSLCERTMODE=allow"},
	{"sslcompression", "1", "PGSSLCOMPRESSION=1"},
	{"sslcrl", "/nowhere/crl", "PGSSLCRL=/nowhere/crl"},
	{"sslcrldir", "/nowhere", "PGSSLCRLDIR=/nowhere"},
	{"sslkeylogfile", "/nowhere/keys", ignored},
	{"sslnegotiation", "postgres", "PGSSLNEGOTIATION=postgres"},
	{"sslpassword", "hidden", ignored},
	{"sslsni", "1", "PGSSLSNI=1"},
	{"target_session_attrs", "any", "PGTARGETSESSIONATTRS=any"},
	{"tcp_user_timeout", "60000", ignored},
}

const ignored = "ignored"

func TestLibpq_HandlesEveryKey(t *testing.T) {
	unsetLibpq(t)
	services := filepath.ToSlash(filepath.Join(t.TempDir(), "services"))
	for _, test := range append(keysOfLibpq, []struct{ key, value, want string }{
		{"hostaddr", "127.0.0.1", "PGHOSTADDR=127.0.0.1"},
		{"oauth_ca_file", "/nowhere", ignored},
		{"sslcert", "", ""},
		{"sslkey", "", ""},
		{"sslmode", "require", "PGSSLMODE=verify-full"},
		{"sslrootcert", "system", "PGSSLROOTCERT=system"},
		{"datestyle", "German", "PGDATESTYLE=German"},
		{"geqo", "off", "PGGEQO=off"},
		{"timezone", "Asia/Tokyo", "PGTZ=Asia/Tokyo"},
		{"TimeZone", "Asia/Tokyo", "PGTZ=Asia/Tokyo"},
		{"search_path", "shop", "PGOPTIONS=-c search_path=shop"},
	}...) {
		if err := os.WriteFile(services, []byte("[s]\nhost=h\n"+test.key+"="+test.value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for origin, dsn := range map[string]string{
			"DSN":                      "host=h " + test.key + "='" + test.value + "'",
			"DSN, as URL":              "postgres://h?" + test.key + "=" + inURL(test.value),
			"service s in " + services: "service=s " + dsnSetting(false, "servicefile", services),
		} {
			env, warnings := libpqFor(t, dsn)
			if test.want != "" && test.want != ignored && !slices.Contains(env, test.want) {
				t.Errorf("%s: want %s in\n%s", dsn, test.want, strings.Join(env, "\n"))
			}
			from, _, _ := strings.Cut(origin, ",")
			named := len(warnings) == 1 && strings.HasPrefix(warnings[0], test.key+" ("+from+") is ignored: ")
			if named != (test.want == ignored) || !named && len(warnings) > 0 {
				t.Errorf("%s: warnings %q", dsn, warnings)
			}
			if text := strings.Join(append(warnings, env...), "\n"); test.want == ignored && strings.Contains(text, test.value+"\n") ||
				strings.Contains(text, "hidden") || strings.Contains(text, "-c "+test.key) && test.key != "search_path" {
				t.Errorf("%s: the value is in\n%s", dsn, text)
			}
		}
	}
}

func TestLibpq_EscapesOptions(t *testing.T) {
	unsetLibpq(t)
	env, _ := libpqFor(t, "host=h search_path='a, b' options='-c x.y=1' my.path='c:\\\\d\te\nf' work_mem=''")
	want := `PGOPTIONS=-c x.y=1 -c my.path=c:\\d` + "\\\te\\\nf" + ` -c search_path=a,\ b -c work_mem=`
	if !slices.Contains(env, want) {
		t.Errorf("want %q in\n%q", want, env)
	}
}

func TestLibpq_RejectsWhatLibpqCannotDo(t *testing.T) {
	unsetLibpq(t)
	for _, test := range []struct{ dsn, variable, want string }{
		{"host=h require_auth=oauth", "", "entrapg: require_auth: must allow password, because libpq cannot send the token by OAUTHBEARER; use require_auth=password or omit it"},
		{"host=h", "PGREQUIREAUTH=!password", "entrapg: require_auth (PGREQUIREAUTH): must allow password"},
		{"postgres://h/host%3Devil.example%20sslmode%3Ddisable", "", "entrapg: dbname: looks like a connection string"},
		{"host=h dbname=postgresql://evil.example/d", "", "entrapg: dbname: looks like a connection string"},
		{"host=h", "PGDATABASE=postgres://evil.example/d", "entrapg: dbname (PGDATABASE): looks like a connection string"},
		{"host=localhost hostaddr=192.0.2.1 sslmode=disable", "", "entrapg: hostaddr: the token would be sent to 192.0.2.1 in plaintext"},
	} {
		if name, value, ok := strings.Cut(test.variable, "="); ok {
			t.Setenv(name, value)
		}
		login, _, err := openForLibpq(test.dsn)
		if err == nil {
			_, err = libpqVariables(login, &inspect.Token{Value: "secret", User: "u"})
			login.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.dsn, err, test.want)
		}
	}
}

func TestLibpq_WarnsOfRequiredGSSAPI(t *testing.T) {
	unsetLibpq(t)
	_, warnings := libpqFor(t, "host=h gssencmode=require")
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "gssencmode (DSN) is ignored: ") {
		t.Errorf("%q", warnings)
	}
	t.Setenv("PGGSSENCMODE", "require")
	env, warnings := libpqFor(t, "host=h")
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "gssencmode (PGGSSENCMODE) is ignored: ") ||
		!slices.Contains(env, "PGGSSENCMODE=disable") {
		t.Errorf("%q, %q", warnings, env)
	}
}

func TestEnviron_ReplacesAndRemovesVariables(t *testing.T) {
	t.Parallel()
	old := []string{"=C:=C:\\work", "PGHOST=a", "PgUser=b", "PGHOST=c", "Path=d", "odd"}
	changes := map[string]string{"PGHOST": "h", "PGUSER": "u", "PGSERVICE": "", "PATH": ""}
	for ignoreCase, want := range map[bool][]string{
		false: {"=C:=C:\\work", "PgUser=b", "Path=d", "odd", "PGHOST=h", "PGUSER=u"},
		true:  {"=C:=C:\\work", "odd", "PGHOST=h", "PGUSER=u"}, // Windows
	} {
		if got := environ(old, changes, ignoreCase); !slices.Equal(got, want) {
			t.Errorf("%t: got %q, want %q", ignoreCase, got, want)
		}
	}
}

func TestLibpq_PsqlLogsInWithEveryKey(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "psql-keys", true)
	psql := installed(t, "psql")
	keywords := "host=localhost hostaddr=127.0.0.1 port=" + portOf(
		t,
		s,
	) + " dbname=postgres sslmode=verify-full " + dsnSetting(
		false,
		"sslrootcert",
		s.CAFile(),
	)
	services := filepath.ToSlash(filepath.Join(t.TempDir(), "services"))
	service := "[s]\n" + strings.ReplaceAll(keywords, " ", "\n") + "\n"
	link := s.DSN()
	for _, k := range keysOfLibpq {
		keywords += " " + k.key + "='" + k.value + "'"
		service += k.key + "=" + k.value + "\n"
		separator := "&"
		if !strings.Contains(link, "?") {
			separator = "?"
		}
		link += separator + k.key + "=" + inURL(k.value)
	}
	if err := os.WriteFile(services, []byte(service), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dsn := range map[string]string{"keywords": keywords, "URL": link, "service": "service=s " + dsnSetting(false, "servicefile", services)} {
		r := runAs(t, append(env, "PGCLIENTENCODING="), "exec", dsn, "--", psql, "-XAtc",
			"select session_user, current_setting('application_name'), current_setting('geqo_effort')")
		if r.code != 0 || r.stdout != "psql-keys|shop|3\n" {
			t.Errorf("%s: %+v", name, r)
		}
		for _, k := range keysOfLibpq {
			if warned := strings.Contains(r.stderr, "entrapg: warning: "+k.key+" ("); warned != (k.want == ignored) {
				t.Errorf("%s: %s: warning %t in\n%s", name, k.key, warned, r.stderr)
			}
		}
		if strings.Contains(r.stderr, "hidden") {
			t.Errorf("%s: a secret is in\n%s", name, r.stderr)
		}
	}
}

func TestLibpq_ServerGetsParametersUnchanged(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "psql-options", true)
	const value = "it's \\ a\tb\nc  d -c work_mem=1 \u00a0 é"
	dsn := "postgres://localhost:" + portOf(t, s) + "/postgres?sslrootcert=" + s.CAFile() +
		"&my.value=" + inURL(value) + "&TimeZone=Asia/Tokyo&datestyle=German&options=-c%20geqo_effort%3D3"
	r := runAs(t, append(env, "PGTZ=UTC", "PGDATESTYLE=ISO"), "exec", dsn, "--", installed(t, "psql"), "-XAtc",
		"select current_setting('my.value'), current_setting('timezone'), current_setting('datestyle'), current_setting('geqo_effort')")
	if want := value + "|Asia/Tokyo|German, DMY|3\n"; r.code != 0 || r.stdout != want {
		t.Errorf("%+v, want %q", r, want)
	}
}
