package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
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
		says string
	}{
		{"", nil, "missing DSN"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--trust", upstream}, "--trust requires no password, but ENTRAPG_PROXY_PASSWORD sets one"},
		{"", []string{"--trust", "--password-file", password, upstream}, "--trust requires no password, but --password-file"},
		{"", []string{"--trust", "--allow-remote", upstream}, "--trust is not used with --allow-remote"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--password-file", password, upstream}, "both set the password"},
		{"ENTRAPG_PROXY_PASSWORD=", []string{upstream}, "the password is empty"},
		{"", []string{"--password-file", empty, upstream}, "the password is empty"},
		{"", []string{"--listen", "0.0.0.0:5432", upstream}, "--listen 0.0.0.0:5432: other machines could connect; listen on 127.0.0.1, or add --allow-remote"},
		{"", []string{"--listen", ":5432", "--trust", upstream}, "other machines could connect"},
		{"ENTRAPG_PROXY_LISTEN=192.0.2.1", []string{upstream}, "ENTRAPG_PROXY_LISTEN 192.0.2.1:5432: other machines could connect"},
		{"", []string{"--listen", "[::]:5432", "--allow-remote", upstream}, "set ENTRAPG_PROXY_PASSWORD or --password-file"},
		{"ENTRAPG_PROXY_PASSWORD=secret", []string{"--listen", "db.internal:5432", "--allow-remote", upstream}, "set --tls-cert and --tls-key"},
		{"", []string{"--tls-cert", password, upstream}, "must be set together"},
		{"", []string{"--tls-key", password, upstream}, "must be set together"},
		{"", []string{"--client-user", upstream + " user=shop"}, "--client-user is not used with a user in the DSN"},
		{"", []string{"--listen", "127.0.0.1:x", upstream}, "--listen: invalid port"},
		{"", []string{"--listen", "", upstream}, "--listen: missing address"},
		{"", []string{"--listen", "5433=shop", upstream}, `what follows "5433=" must be a DSN`},
		{"", []string{"--listen", "5433", "--listen", "127.0.0.1:5433", upstream}, "the address is set twice"},
		{"", []string{"--status", "x:y", upstream}, "--status: invalid port"},
		{"", []string{"--status", "/run/entrapg", upstream}, "--status: "},
		{"", []string{"--max-connections", "-1", upstream}, "--max-connections: invalid value"},
		{"ENTRAPG_PROXY_MAX_CONNECTIONS=many", []string{upstream}, "ENTRAPG_PROXY_MAX_CONNECTIONS: invalid value"},
		{"", []string{"--grace", "10", upstream}, "--grace: invalid value"},
		{"", []string{"--log-format", "xml", upstream}, "must be text or json"},
		{"", []string{"--log-level", "loud", upstream}, "must be debug, info, warn or error"},
		{"", []string{upstream, upstream}, "unexpected argument"},
		{"", []string{upstream, "--dsn", upstream}, "the DSN is set twice"},
	} {
		if runtime.GOOS == "windows" && strings.Contains(strings.Join(test.args, " "), "/run") {
			continue
		}
		var env []string
		if test.env != "" {
			env = []string{test.env}
		}
		r := runAs(t, env, append([]string{"proxy"}, test.args...)...)
		if r.code != misuse || !strings.Contains(r.stderr, test.says) || r.stdout != "" {
			t.Errorf("%s %q: exit code %d, want %d and %q:\n%s%s", test.env, test.args, r.code, misuse, test.says, r.stderr, r.stdout)
		}
	}
}

func TestProxy_ErrorsNameFileAndLineWithoutSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, says string }{
		"no DSN":          {"# fronts\n\n5433\n", "proxy.conf, line 3: missing DSN; a line is ADDRESS = DSN"},
		"invalid address": {"5433:x = host=db.example password=hidden\n", `proxy.conf, line 1: invalid port "x"`},
		"invalid DSN":     {"5433 = host=a\n5434 = host=a sslmode=prefer application_name=hidden # hidden\n", "proxy.conf, line 2: sslmode"},
		"no URL":          {"5433 = hidden\n", `proxy.conf, line 1: what follows "5433="`},
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
		if r.code == done || !strings.Contains(r.stderr, test.says) || strings.Contains(r.stderr, "hidden") || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %q:\n%s%s", name, r.code, test.says, r.stderr, r.stdout)
		}
	}
	var r result
	for _, value := range []string{"5433:x=host=db.example password=hidden", "postgres://a:hidden@host/a", "postgres://a:hidden@host/a?b=c"} {
		if r = runAs(t, nil, "proxy", "--listen", value, "host=a"); r.code != misuse || strings.Contains(r.stderr, "hidden") {
			t.Errorf("%s: %+v", value, r)
		}
	}
	r = runAs(t, nil, "proxy", "--env-file", filepath.Join(t.TempDir(), "missing.env"), "--listen", "5433=host=a")
	if r.code != failed || !strings.Contains(r.stderr, "missing.env") {
		t.Errorf("%+v", r)
	}
	r = runAs(t, nil, "proxy", "--config", filepath.Join(t.TempDir(), "missing.conf"))
	if r.code != failed || !strings.Contains(r.stderr, "missing.conf") {
		t.Errorf("%+v", r)
	}
}

func TestProxy_CommentsEndOutsideOfQuotes(t *testing.T) {
	for line, want := range map[string]string{
		"# all":                                 "",
		"5433 = host=a # tail":                  "5433 = host=a ",
		"5433 = host=a#b":                       "5433 = host=a#b",
		"5433 = application_name='a # b' # c":   "5433 = application_name='a # b' ",
		`5433 = application_name='a \' # b' #c`: `5433 = application_name='a \' # b' `,
		"5433 = postgres://a/b?options=-c#x":    "5433 = postgres://a/b?options=-c#x",
		"\t# indented":                          "\t",
	} {
		if got := withoutComment(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// The command that the proxy prints contains its password. A DSN from elsewhere must
// not make it connect to another host, or add lines to it.
func TestProxy_DatabaseAddsNothingToPrintedCommand(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"a\thost=evil.example", "a\nhost=evil.example", "a\vport=1", `a' host='evil.example`, `a\`, "a\u00a0b", ""} {
		config, err := pgconn.ParseConfig("host=127.0.0.1 port=5433 dbname=" + conninfo(database) + " sslmode=disable")
		if err != nil || config.Host != "127.0.0.1" || config.Port != 5433 || database != "" && config.Database != database {
			t.Errorf("%q: %v", database, err)
		}
	}
	u, err := engine.NewUpstream("postgres://127.0.0.1/a%0AConnect:%1B[2J?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	front := &proxyFront{address: listener.Address{Host: "127.0.0.1", Port: 5432}, upstream: &proxyUpstream{Upstream: u}}
	front.upstream.name = serversOf(u)
	var out strings.Builder
	(&proxyPlan{fronts: []*proxyFront{front}}).introduce(&terminal{Writer: &out, width: 80})
	requireHarmless(t, out.String())
	if strings.Contains(out.String(), "\nConnect:\x1b") || strings.Count(out.String(), "\nConnect:") != 1 {
		t.Errorf("got %s", &out)
	}
}

// A hangingCredential returns an error once, and then not before it is released.
type hangingCredential struct {
	calls   atomic.Int64
	release chan struct{}
}

func (c *hangingCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if c.calls.Add(1) > 1 {
		select {
		case <-c.release:
		case <-ctx.Done():
		}
	}
	return azcore.AccessToken{}, errors.New("no token")
}

func TestProxyUpstream_ProbesRequestOneTokenAtATime(t *testing.T) {
	t.Parallel()
	credential := &hangingCredential{release: make(chan struct{})}
	upstream, err := engine.NewUpstream("postgres://127.0.0.1/a?sslmode=disable", entrapg.WithCredential(credential), entrapg.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	defer close(credential.release)
	if err := upstream.RequestToken(t.Context()); err == nil {
		t.Fatal("got a token")
	}
	u := &proxyUpstream{Upstream: upstream}
	for deadline := time.Now().Add(time.Minute); credential.calls.Load() < 2; time.Sleep(10 * time.Millisecond) {
		if u.ready(time.Hour); time.Now().After(deadline) {
			t.Fatal("probes request no token")
		}
	}
	for range 1000 {
		u.ready(time.Hour)
	}
	stacks := make([]byte, 16<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if n := strings.Count(string(stacks), "(*proxyUpstream).ready.func1()"); n != 1 {
		t.Errorf("%d goroutines request a token", n)
	}
}
