package connstring_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/internal/connstring"
)

// pgxVariables are the environment variables that pgx 5.12 reads, by libpq's key.
var pgxVariables = map[string]string{
	"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD",
	"passfile": "PGPASSFILE", "application_name": "PGAPPNAME", "connect_timeout": "PGCONNECT_TIMEOUT",
	"sslmode": "PGSSLMODE", "sslkey": "PGSSLKEY", "sslcert": "PGSSLCERT", "sslcertmode": "PGSSLCERTMODE",
	"sslsni": "PGSSLSNI", "sslrootcert": "PGSSLROOTCERT", "sslpassword": "PGSSLPASSWORD",
	"sslnegotiation": "PGSSLNEGOTIATION", "target_session_attrs": "PGTARGETSESSIONATTRS",
	"service": "PGSERVICE", "servicefile": "PGSERVICEFILE", "timezone": "PGTZ", "options": "PGOPTIONS",
	"min_protocol_version": "PGMINPROTOCOLVERSION", "max_protocol_version": "PGMAXPROTOCOLVERSION",
	"channel_binding": "PGCHANNELBINDING", "require_auth": "PGREQUIREAUTH",
}

// clearEnvironment unsets the variables that Parse reads.
func clearEnvironment(t testing.TB) {
	for _, name := range pgxVariables {
		t.Setenv(name, "") // restores it after the test
		os.Unsetenv(name)
	}
	t.Setenv("PGHOSTADDR", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("USERPROFILE", os.Getenv("HOME"))
	t.Setenv("APPDATA", "")
}

func TestInDSN_ReadsWhatPgxReads(t *testing.T) {
	clearEnvironment(t)
	for dsn, want := range map[string]map[string]string{
		"":                                       {},
		"host=h user=u sslmode=require dbname=d": {"host": "h", "user": "u", "sslmode": "require", "dbname": "d"},
		"database=d dbname=e":                    {"dbname": "e"},
		" host = 'a b' user='it\\'s' port=1 ":    {"host": "a b", "user": "it's", "port": "1"},
		"host=h\\ i user=\t'x'y=z":               {"host": "h i", "user": "x", "y": "z"},
		`user=a\`:                                {"user": "a"},
		"host=h user=":                           {"host": "h"},
		"user=a user=''":                         {"user": "a"},
		"host=h sslmode=":                        {"host": "h", "sslmode": ""},
		"host=h ssl=true":                        {"host": "h", "ssl": "true"},
		"postgres://":                            {},
		"postgres://h":                           {"host": "h"},
		"postgres://h?":                          {"host": "h"},
		"postgres:///?host=/tmp&":                {"host": "/tmp"},
		"postgresql://u:p@h:1/d":                 {"user": "u", "password": "p", "host": "h", "port": "1", "dbname": "d"},
		"postgres://%75%20v:%70@%68:1/%64":       {"user": "u v", "password": "p", "host": "h", "port": "1", "dbname": "d"},
		"postgres://@h/":                         {"host": "h"},
		"postgres://:@h":                         {"host": "h"},
		"postgres://h/?user=":                    {"host": "h", "user": ""},
		"postgres://x@h/d?user=y&dbname=e":       {"host": "h", "user": "y", "dbname": "e"},
		"postgres://u?x@h/":                      {"user": "u?x", "host": "h"},
		"postgres://h/d?a=b%26c&d=a+b":           {"host": "h", "dbname": "d", "a": "b&c", "d": "a+b"},
		"postgres://[::1]":                       {"host": "::1"},
		"postgres://u:p@[::1?]:54/d?user=x":      {"host": "::1?", "port": "54", "dbname": "d", "user": "x", "password": "p"},
		"postgres://a:1,[::1,/]:2,c/d":           {"host": "a,::1,/,c", "port": "1,2,", "dbname": "d"},
		"postgres://a,b":                         {"host": "a,b", "port": ","},
		"postgres://h/d/e?a=b":                   {"host": "h", "dbname": "d/e", "a": "b"},
		"postgres://h?ssl=true":                  {"host": "h", "sslmode": "require"},
		"postgres://h?sslmode=disable&ssl=true":  {"host": "h", "sslmode": "require"},
		"postgres://h?ssl=true&sslmode=disable":  {"host": "h", "sslmode": "disable"},
		"postgres://h?ssl=true&ssl=false":        {"host": "h", "ssl": "false"},
		"postgres://h?ssl=1":                     {"host": "h", "ssl": "1"},
	} {
		wantSettings := connstring.Settings{}
		for key, value := range want {
			wantSettings[key] = connstring.Setting{Value: value, Origin: "DSN"}
		}
		if got := connstring.InDSN(dsn); !maps.Equal(got, wantSettings) {
			t.Errorf("%q: got %v, want %v", dsn, got, wantSettings)
		}
		if got := connstring.Parse(dsn); !maps.Equal(got, wantSettings) {
			t.Errorf("%q: Parse: got %v, want %v", dsn, got, wantSettings)
		}
		if _, err := pgx.ParseConfig(dsn); err != nil && !strings.Contains(err.Error(), "port") {
			t.Errorf("pgx rejects the case %q: %v", dsn, err)
		}
	}
}

func TestInDSN_AcceptsMalformedInput(t *testing.T) {
	for _, dsn := range []string{
		"h", "host='h", "=", "a b=c",
		"postgres://[::1", "postgres://[]x/d", "postgres://%zz@h?%zz=%zz&a&=", "postgres://h?a==b",
	} {
		connstring.InDSN(dsn)
		connstring.WithDefault(dsn, "sslmode", "verify-full")
	}
}

func TestParse_ReportsOrigin(t *testing.T) {
	clearEnvironment(t)
	file := filepath.Join(t.TempDir(), "services")
	content := "[full]\nuser=service\ndbname=service\nsslmode=require\nempty=\n[blank]\nuser=\n[alias]\ndatabase=service\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	service := func(name, value string) connstring.Setting {
		return connstring.Setting{Value: value, Origin: "service " + name + " in " + file}
	}
	dsn := func(value string) connstring.Setting { return connstring.Setting{Value: value, Origin: "DSN"} }
	pguser := connstring.Setting{Value: "variable", Origin: "PGUSER"}

	for _, test := range []struct {
		name, dsn, service, pguser string
		want                       connstring.Settings
	}{
		{"variable", "", "", "variable", connstring.Settings{"user": pguser}},
		{"nothing", "", "", "", connstring.Settings{"user": {}}},
		{"DSN over variable", "user=dsn", "", "variable", connstring.Settings{"user": dsn("dsn")}},
		{"empty keyword", "user=''", "", "variable", connstring.Settings{"user": pguser}},
		{"empty URL user", "postgres://@h", "", "variable", connstring.Settings{"user": pguser}},
		{"empty user in a query", "postgres://h?user=", "", "variable", connstring.Settings{"user": dsn("")}},
		{
			"service over variable", "", "full", "variable",
			connstring.Settings{
				"user": service("full", "service"), "dbname": service("full", "service"), "empty": service("full", ""),
			},
		},
		{
			"DSN over service", "user=dsn sslmode=disable", "full", "variable",
			connstring.Settings{
				"user": dsn("dsn"), "sslmode": dsn("disable"), "dbname": service("full", "service"),
			},
		},
		{
			"service without user", "", "alias", "variable",
			connstring.Settings{"user": pguser, "dbname": service("alias", "service")},
		},
		{"empty user of a service", "", "blank", "variable", connstring.Settings{"user": service("blank", "")}},
		{
			"service of the DSN", "service=full", "alias", "",
			connstring.Settings{"user": service("full", "service"), "service": dsn("full")},
		},
		{
			"service of a URL", "postgres://?service=full", "", "",
			connstring.Settings{"user": service("full", "service")},
		},
		{"unknown service", "", "other", "variable", connstring.Settings{"user": pguser, "dbname": {}}},
		{
			"unreadable file", "servicefile=" + filepath.Join(t.TempDir(), "missing"), "full", "variable",
			connstring.Settings{"user": pguser, "dbname": {}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PGUSER", test.pguser)
			t.Setenv("PGSERVICEFILE", file)
			if test.service != "" {
				t.Setenv("PGSERVICE", test.service)
			}
			got := connstring.Parse(test.dsn)
			for key, want := range test.want {
				if got[key] != want {
					t.Errorf("%s: got %q, want %q", key, got[key], want)
				}
			}
			if got.Value("user") != test.want["user"].Value {
				t.Errorf("Value: got %q", got.Value("user"))
			}
			if _, ok := connstring.InDSN(test.dsn)["sslmode"]; ok != strings.Contains(test.dsn, "sslmode") {
				t.Error("InDSN contains a setting that is not in the DSN")
			}
			config, err := pgx.ParseConfig(test.dsn)
			if err == nil && got["user"] != (connstring.Setting{}) && config.User != got.Value("user") {
				t.Errorf("pgx has the user %q, got %q", config.User, got.Value("user"))
			}
		})
	}
}

func TestParse_ReadsDefaultServiceFile(t *testing.T) {
	clearEnvironment(t)
	file := filepath.Join(os.Getenv("HOME"), ".pg_service.conf")
	if err := os.WriteFile(file, []byte("[s]\nuser=u\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := connstring.Setting{Value: "u", Origin: "service s in " + file}
	if got := connstring.Parse("service=s")["user"]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if config, err := pgx.ParseConfig("service=s"); err != nil || config.User != "u" {
		t.Errorf("pgx: user %q, error %v", config.User, err)
	}
}

func TestParse_ReadsEveryVariableOfPgx(t *testing.T) {
	for key, name := range pgxVariables {
		t.Run(name, func(t *testing.T) {
			clearEnvironment(t)
			t.Setenv(name, "value")
			want := connstring.Settings{key: {Value: "value", Origin: name}}
			if got := connstring.Parse(""); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			want[key] = connstring.Setting{Value: "own", Origin: "DSN"}
			if got := connstring.Parse(key + "=own"); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			t.Setenv(name, "")
			if _, ok := connstring.Parse("")[key]; ok != (key == "sslcertmode") {
				t.Errorf("an empty variable counts as set: %t", ok)
			}
		})
	}
}

func TestWithDefault_IsOverriddenByDSNOnly(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("PGAPPNAME", "variable")
	for _, base := range []string{
		"", "host=h", "application_name=%s", "host=h application_name=%s",
		"postgres://", "postgres://h", "postgres://h?", "postgres://h/d", "postgres://h/d?a=b",
		"postgres://u@h?application_name=%s", "postgres://u@[::1?]/d?x=y&application_name=%s",
	} {
		for _, value := range []string{"", "verify-full", `it's \ & = @ / + % ? # "` + "\n"} {
			dsn := strings.ReplaceAll(base, "%s", "own")
			want := value
			if dsn != base {
				want = "own"
			}
			dsn = connstring.WithDefault(dsn, "application_name", value)
			config, err := pgx.ParseConfig(dsn)
			if err != nil {
				t.Errorf("%s: %v", dsn, err)
				continue
			}
			if got := config.RuntimeParams["application_name"]; got != want {
				t.Errorf("%s: pgx has %q, want %q", dsn, got, want)
			}
			if got := connstring.Parse(dsn).Value("application_name"); got != want {
				t.Errorf("%s: got %q, want %q", dsn, got, want)
			}
		}
	}
}

func TestWithOverride_OverridesEverything(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("PGAPPNAME", "variable")
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[s]\napplication_name=service\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGSERVICEFILE", services)
	for _, base := range []string{
		"", "host=h", "application_name=own", "host=h application_name=own", "host=h service=s", `host=h\ `,
		"postgres://", "postgres://h", "postgres://h?", "postgres://h/d", "postgres://h/d?a=b", "postgres://h/d?a=b&",
		"postgres://u@h?application_name=own", "postgres://u@[::1?]/d?application_name=own&x=y", "postgres://h?service=s",
	} {
		for _, value := range []string{"", "other", `it's \ & = @ / + % ? # "` + "\n"} {
			dsn := connstring.WithOverride(base, "application_name", value)
			config, err := pgx.ParseConfig(dsn)
			if err != nil {
				t.Errorf("%s: %v", dsn, err)
				continue
			}
			if got := config.RuntimeParams["application_name"]; got != value {
				t.Errorf("%s: pgx has %q, want %q", dsn, got, value)
			}
			if got := connstring.Parse(dsn).Value("application_name"); got != value {
				t.Errorf("%s: got %q, want %q", dsn, got, value)
			}
		}
	}
}
