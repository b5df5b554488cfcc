package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

func TestProxy_RejectsUnsafeAndContradictorySettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, password := file("empty", "\n"), file("password", "secret\n")
	const upstream = "host=db.example sslmode=verify-full"
	for _, test := range []struct {
		env  string
		args []string
		want string
	}{
		{"", nil, "missing DSN"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--trust", upstream}, "--trust requires no password, but ENTRAPG_PROXY_PASSWORD sets one"},
		{"", []string{"--trust", "--password-file", password, upstream}, "--trust requires no password, but --password-file"},
		{"", []string{"--trust", "--allow-remote", upstream}, "--trust is not used with --allow-remote"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--password-file", password, upstream}, "both set the password"},
		{"ENTRAPG_PROXY_PASSWORD=", []string{upstream}, "the password is empty"},
		{"", []string{"--password-file", empty, upstream}, "the password is empty"},
		{
			"",
			[]string{"--listen", "0.0.0.0:5432", upstream},
			"--listen 0.0.0.0:5432: other machines could connect; listen on 127.0.0.1, or add --allow-remote",
		},
		{"", []string{"--listen", ":5432", "--trust", upstream}, "other machines could connect"},
		{"ENTRAPG_PROXY_LISTEN=192.0.2.1", []string{upstream}, "ENTRAPG_PROXY_LISTEN 192.0.2.1:5432: other machines could connect"},
		{"", []string{"--listen", "[::]:5432", "--allow-remote", upstream}, "set ENTRAPG_PROXY_PASSWORD or --password-file"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--listen", "db.internal:5432", "--allow-remote", upstream}, "set --tls-cert and --tls-key"},
		{"", []string{"--tls-cert", password, upstream}, "must be set together"},
		{"", []string{"--tls-key", password, upstream}, "must be set together"},
		{"", []string{"--client-user", upstream + " user=shop"}, "--client-user is not used with a user in the DSN"},
		{"", []string{"--listen", "127.0.0.1:x", upstream}, "--listen: invalid port"},
		{"", []string{"--listen", "", upstream}, "--listen: missing address"},
		{"", []string{"--listen", "5433=shop", upstream}, `"5433=" must be followed by a DSN`},
		{"", []string{"--listen", "5433", "--listen", "127.0.0.1:5433", upstream}, "the address is set twice"},
		{"", []string{"--status", "x:y", upstream}, "--status: invalid port"},
		{"", []string{"--status", "/run/entrapg", upstream}, "--status: "},
		{"", []string{"--max-connections", "-1", upstream}, "--max-connections: invalid value"},
		{"ENTRAPG_PROXY_MAX_CONNECTIONS=many", []string{upstream}, "ENTRAPG_PROXY_MAX_CONNECTIONS: invalid value"},
		{"", []string{"--grace", "10", upstream}, "--grace: invalid value"},
		{"", []string{"--log-format", "xml", upstream}, "must be text or json"},
		{"", []string{"--log-level", "loud", upstream}, "must be debug, info, warn or error"},
		{
			"",
			[]string{"--listen", "5433=" + upstream, upstream},
			"the DSN of the argument is not used, because each address has its own DSN",
		},
		{"", []string{"--listen", "5433=" + upstream, "--dsn", upstream}, "the DSN of --dsn is not used"},
		{"ENTRAPG_PROXY_DSN=" + upstream, []string{"--listen", "5433=" + upstream}, "the DSN of ENTRAPG_PROXY_DSN is not used"},
		{"", []string{"--listen", "localhost:5433", "--listen", "5433", upstream}, "the address is set twice"},
		{
			"",
			[]string{"--listen", "5433", "--status", "5433", upstream},
			"--status 127.0.0.1:5433: conflicts with --listen 127.0.0.1:5433;",
		},
		{"", []string{"--status", ":5432", upstream}, "--status :5432: conflicts with 127.0.0.1:5432;"},
		{
			"",
			[]string{"--listen", "internal", upstream},
			`--listen: "internal" is a directory; write "./internal" for a socket in it, or "internal:5432" for a host`,
		},
		{"", []string{upstream, upstream}, "unexpected second DSN"},
		{"", []string{upstream, "--dsn", upstream}, "the DSN is set twice"},
	} {
		if args := strings.Join(test.args, " "); runtime.GOOS == "windows" &&
			(strings.Contains(args, "/run") || strings.Contains(args, "internal ")) {
			continue
		}
		var env []string
		if test.env != "" {
			env = []string{test.env}
		}
		r := runAs(t, env, append([]string{"proxy"}, test.args...)...)
		if r.code != command.Misuse || !strings.Contains(r.stderr, test.want) || r.stdout != "" {
			t.Errorf("%s %q: exit code %d, want %d and %q:\n%s%s",
				test.env, test.args, r.code, command.Misuse, test.want, r.stderr, r.stdout)
		}
	}
}

func TestProxy_ErrorsNameFileAndLineWithoutSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, want string }{
		"no DSN":          {"# fronts\n\n5433\n", "proxy.conf, line 3: missing DSN; a line is ADDRESS = DSN"},
		"invalid address": {"5433:x = host=db.example password=hidden\n", `proxy.conf, line 1: invalid port "x"`},
		"invalid DSN":     {"5433 = host=a\n5434 = host=a sslmode=prefer application_name=hidden # hidden\n", "proxy.conf, line 2: sslmode"},
		"only DSN":        {"\n5433 = host=a sslmode=prefer\n", "--config: FILE, line 2: sslmode"},
		"no URL":          {"5433 = hidden\n", `proxy.conf, line 1: "5433=" must be followed by a DSN`},
		"no address":      {"postgres://a:hidden@host/a?b=c\n", "proxy.conf, line 1: missing address before the DSN"},
		"DSN as port":     {"5433 postgres://a:hidden@host/a?b=c\n", "proxy.conf, line 1: missing address before the DSN"},
		"set twice":       {"5433 = host=a\n127.0.0.1:5433 = host=b\n", "proxy.conf, line 2: the address is set twice"},
		"remote":          {"5433 = host=a\n:5434 = host=b\n", "proxy.conf, line 2: other machines could connect"},
		"no lines":        {"# nothing\n", "proxy.conf has no line ADDRESS = DSN"},
	} {
		path := filepath.Join(t.TempDir(), "proxy.conf")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runAs(t, nil, "proxy", "--config", path)
		want := strings.ReplaceAll(test.want, "FILE", path)
		if r.code == command.Done || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "hidden") || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %q:\n%s%s", name, r.code, test.want, r.stderr, r.stdout)
		}
	}
	var r result
	for _, value := range []string{"5433:x=host=db.example password=hidden", "postgres://a:hidden@host/a", "postgres://a:hidden@host/a?b=c"} {
		if r = runAs(t, nil, "proxy", "--listen", value, "host=a"); r.code != command.Misuse || strings.Contains(r.stderr, "hidden") {
			t.Errorf("%s: %+v", value, r)
		}
	}
	r = runAs(t, nil, "proxy", "--env-file", filepath.Join(t.TempDir(), "missing.env"), "--listen", "5433=host=a")
	if r.code != command.Failed || !strings.Contains(r.stderr, "missing.env") {
		t.Errorf("%+v", r)
	}
	r = runAs(t, nil, "proxy", "--config", filepath.Join(t.TempDir(), "missing.conf"))
	if r.code != command.Failed || !strings.Contains(r.stderr, "missing.conf") {
		t.Errorf("%+v", r)
	}
}
