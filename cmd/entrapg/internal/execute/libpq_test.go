package execute

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
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

func TestLibpq_SetsVariablesFromDSN(t *testing.T) {
	unsetLibpq(t)
	home := t.TempDir() // without a root.crt
	t.Setenv("HOME", home)
	const ca = "../roots/testdata/ca.pem"
	absolute := func(path string) string {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	services := filepath.ToSlash(filepath.Join(home, "services"))
	if err := os.WriteFile(services, []byte("[shop]\nhost=db.example\nuser=svc\ntarget_session_attrs=read-write\nsslcrl=shop.crl\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct{ dsn, want string }{
		{
			"postgres://shop.postgres.database.azure.com/shop",
			"PGHOST=shop.postgres.database.azure.com PGPORT=5432 PGDATABASE=shop PGUSER=derived PGSSLMODE=verify-full PGSSLROOTCERT=system",
		},
		{"postgres://shop.postgres.database.azure.com/shop?sslmode=require", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h user=bob port=6543 sslmode=require", "PGHOST=h PGPORT=6543 PGUSER=bob PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h sslmode=verify-ca", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"host=h sslmode=require " + quote.DSNSetting(false, "sslrootcert", ca), "PGSSLMODE=verify-ca PGSSLROOTCERT=" + absolute(ca)},
		{"host=h sslmode=require user=bob password=local entra_credential=none", "PGSSLMODE=require PGSSLROOTCERT="},
		{"host=h sslmode=verify-full " + quote.DSNSetting(false, "sslrootcert", ca), "PGSSLMODE=verify-full PGSSLROOTCERT=" + absolute(ca)},
		{"host=h sslrootcert=system", "PGSSLMODE=verify-full PGSSLROOTCERT=system"},
		{"postgres://127.0.0.1/d?sslmode=disable", "PGSSLMODE=disable PGSSLROOTCERT="},
		{"postgres://a:1,b:2/d?target_session_attrs=any&connect_timeout=7", "PGHOST=a,b PGPORT=1,2 PGTARGETSESSIONATTRS=any PGCONNECT_TIMEOUT=7"},
		{"host=a,a,b hostaddr=192.0.2.1,192.0.2.1,192.0.2.2", "PGHOST=a,a,b PGPORT=5432,5432,5432 PGHOSTADDR=192.0.2.1,192.0.2.1,192.0.2.2"},
		{"host=a,b sslmode=prefer user=bob password=local entra_credential=none", "PGHOST=a,b PGPORT=5432,5432 PGSSLMODE=prefer"},
		{
			"service=shop " + quote.DSNSetting(false, "servicefile", services),
			"PGHOST=db.example PGUSER=svc PGTARGETSESSIONATTRS=read-write PGSSLCRL=" + absolute("shop.crl") + " PGSERVICE= PGSERVICEFILE=",
		},
		{"host=h hostaddr=192.0.2.2", "PGHOST=h PGHOSTADDR=192.0.2.2"},
		{"host=h", "PGPASSFILE= PGHOSTADDR= PGGSSENCMODE=disable PGPASSWORD=secret PGREQUIREAUTH=password PGOPTIONS="},
		{"host=h require_auth=oauth,password", "PGREQUIREAUTH=password"},
		{"host=h require_auth=!scram-sha-256,!oauth", "PGREQUIREAUTH=password"},
		{"host=h user=bob password=local entra_credential=none", "PGREQUIREAUTH= PGGSSENCMODE=disable"},
		{
			"host=h user=bob password=local entra_credential=none require_auth=scram-sha-256 gssencmode=require",
			"PGREQUIREAUTH=scram-sha-256 PGGSSENCMODE=require",
		},
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

// keysOfLibpq returns the keys that PQconndefaults lists in PostgreSQL 15 to 18, with
// values that are valid for a login on this machine, and whether each becomes
// a variable or is ignored.
func keysOfLibpq(t *testing.T) (keys []keyOfLibpq) {
	t.Helper()
	table, err := os.ReadFile("testdata/libpq-keys.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(line, "\t")
		keys = append(keys, keyOfLibpq{cells[0], cells[1], cells[2]})
	}
	return keys[1:] // without the header
}

type keyOfLibpq struct{ key, value, want string }

const ignored = "ignored"

func TestLibpq_HandlesEveryKey(t *testing.T) {
	unsetLibpq(t)
	services := filepath.ToSlash(filepath.Join(t.TempDir(), "services"))
	for _, test := range append(keysOfLibpq(t), []keyOfLibpq{
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
			"DSN, as URL":              "postgres://h?" + test.key + "=" + strings.ReplaceAll(url.QueryEscape(test.value), "+", "%20"),
			"service s in " + services: "service=s " + quote.DSNSetting(false, "servicefile", services),
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

// A command with another home directory, or that cannot read the file, must not get
// sslmode=require: libpq does not verify the server then.
func TestLibpq_VerifiesWithDefaultRootFile(t *testing.T) {
	unsetLibpq(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("APPDATA", home)
	directory := filepath.Join(home, ".postgresql")
	if runtime.GOOS == "windows" {
		directory = filepath.Join(home, "postgresql")
	}
	ca, err := os.ReadFile("../roots/testdata/ca.pem")
	if err == nil {
		err = os.Mkdir(directory, 0o700)
	}
	file := filepath.Join(directory, "root.crt")
	if err == nil {
		err = os.WriteFile(file, ca, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for dsn, mode := range map[string]string{
		"host=h sslmode=verify-full": "verify-full", "host=h sslmode=require": "verify-ca", "host=h sslmode=verify-ca": "verify-ca",
		"host=h sslmode=require user=bob password=local entra_credential=none": "verify-ca",
		"host=h sslmode=prefer user=bob password=local entra_credential=none":  "prefer",
		"host=h.postgres.database.azure.com sslmode=require":                   "verify-full",
	} {
		env, _ := libpqFor(t, dsn)
		if !slices.Contains(env, "PGSSLMODE="+mode) || !slices.Contains(env, "PGSSLROOTCERT="+file) {
			t.Errorf("%s: want %s and %s in\n%s", dsn, mode, file, strings.Join(env, "\n"))
		}
	}
}

func TestLibpq_PathsOfVariablesAreAbsolute(t *testing.T) {
	unsetLibpq(t)
	for _, name := range []string{"PGSSLCRL", "PGSSLCRLDIR"} {
		t.Setenv(name, "revoked")
	}
	want, err := filepath.Abs("revoked")
	if err != nil {
		t.Fatal(err)
	}
	env, _ := libpqFor(t, "host=h")
	for _, name := range []string{"PGSSLCRL", "PGSSLCRLDIR"} {
		if !slices.Contains(env, name+"="+want) {
			t.Errorf("want %s=%s in\n%s", name, want, strings.Join(env, "\n"))
		}
	}
}

func TestLibpq_RejectsUserThatIsConnectionString(t *testing.T) {
	unsetLibpq(t)
	const attack = "host=evil.example sslmode=disable user=x"
	services := filepath.ToSlash(filepath.Join(t.TempDir(), "services"))
	if err := os.WriteFile(services, []byte("[s]\nhost=h\nuser=postgresql://evil.example/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	derived := &inspect.Token{Value: "secret", User: attack, Claim: "app_displayname"}
	for _, test := range []struct {
		dsn, variable string
		token         *inspect.Token
		want          string // of the error, or empty
	}{
		{"host=h user='" + attack + "'", "", nil, "entrapg: user: looks like a connection string"},
		{"host=h user=postgres://evil.example", "", nil, "entrapg: user: looks like a connection string"},
		{"host=h", attack, nil, "entrapg: user (PGUSER): looks like a connection string"},
		{
			"service=s " + quote.DSNSetting(false, "servicefile", services), "", nil,
			"entrapg: user (service s in " + services + "): looks like a connection string",
		},
		{"host=h", "", derived, "entrapg: user (claim app_displayname): looks like a connection string"},
		{"host=h dbname=shop", "", derived, ""},
		{"host=h user=postgres://evil.example dbname=shop", "", nil, ""},
		{"host=h user=postgres:evil.example", "", nil, ""},
	} {
		t.Setenv("PGUSER", test.variable)
		login, _, err := openForLibpq(test.dsn)
		if err != nil {
			t.Fatal(err)
		}
		token := test.token
		if token == nil {
			token = &inspect.Token{Value: "secret", User: login.Config.User}
		}
		_, err = libpqVariables(login, token)
		login.Close()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %s", test.dsn, err, test.want)
		}
	}
}

func TestLibpq_RejectsUnsupportedSettings(t *testing.T) {
	unsetLibpq(t)
	for _, test := range []struct{ dsn, variable, want string }{
		{
			"host=h require_auth=oauth", "",
			"entrapg: require_auth: must allow password, because libpq cannot send the token by OAUTHBEARER; " +
				"use require_auth=password or omit it",
		},
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
