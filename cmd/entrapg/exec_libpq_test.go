package main

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/entrapgtest"
)

func inURL(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }

func portOf(t *testing.T, s *entrapgtest.Server) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// keysOfLibpq returns the keys that PQconndefaults lists in PostgreSQL 15 to 18, with values
// that are valid for a login on this machine, and whether exec and exec --proxy ignore
// them with a warning.
func keysOfLibpq(t *testing.T) (keys []keyOfLibpq) {
	t.Helper()
	table, err := os.ReadFile("internal/execute/testdata/libpq-keys.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		keys = append(keys, keyOfLibpq{cells[0], cells[1], cells[2] == "ignored", cells[3] == "ignored"})
	}
	return keys[1:] // without the header
}

type keyOfLibpq struct {
	key, value              string
	ignored, ignoredByProxy bool
}

func TestLibpq_PsqlLogsInWithEveryKey(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "psql-keys", true)
	psql := installed(t, "psql")
	keywords := "host=localhost hostaddr=127.0.0.1 port=" + portOf(t, s) +
		" dbname=postgres sslmode=verify-full " + quote.DSNSetting(false, "sslrootcert", s.CAFile())
	services := filepath.ToSlash(filepath.Join(t.TempDir(), "services"))
	service := "[s]\n" + strings.ReplaceAll(keywords, " ", "\n") + "\n"
	link := s.DSN()
	for _, k := range keysOfLibpq(t) {
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
	for name, dsn := range map[string]string{"keywords": keywords, "URL": link, "service": "service=s " + quote.DSNSetting(false, "servicefile", services)} {
		r := runAs(t, append(env, "PGCLIENTENCODING="), "exec", dsn, "--", psql, "-XAtc",
			"select session_user, current_setting('application_name'), current_setting('geqo_effort')")
		if r.code != 0 || r.stdout != "psql-keys|shop|3\n" {
			t.Errorf("%s: %+v", name, r)
		}
		for _, k := range keysOfLibpq(t) {
			if warned := strings.Contains(r.stderr, "entrapg: warning: "+k.key+" ("); warned != k.ignored {
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
