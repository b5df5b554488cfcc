package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal/terminaltest"
)

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

func TestProxy_ErrorsNameFlagOrVariable(t *testing.T) {
	run := func(args ...string) error {
		std := command.Streams{Out: &terminal.Output{Writer: io.Discard}, Err: io.Discard}
		root := &cli.Command{Commands: []*cli.Command{Command(std)}}
		return root.Run(t.Context(), append([]string{"entrapg", "proxy"}, args...))
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct{ flag, value string }{
		{"--status", "/a/path"},
		{"--status", "127.0.0.1:5432"},
		{"--config", missing},
		{"--password-file", missing},
		{"--listen", "a b"},
		{"--listen", "5433\na b"},
		{"--listen", "192.0.2.1:5433"},
	} {
		t.Run(test.flag, func(t *testing.T) {
			if err := run(test.flag, test.value, "postgres://127.0.0.1/"); err == nil || !strings.HasPrefix(err.Error(), test.flag) {
				t.Errorf("%s %q: %v", test.flag, test.value, err)
			}
			variable := "ENTRAPG_PROXY_" + strings.ToUpper(strings.ReplaceAll(test.flag[2:], "-", "_"))
			t.Setenv(variable, test.value)
			if err := run("postgres://127.0.0.1/"); err == nil || !strings.HasPrefix(err.Error(), variable) {
				t.Errorf("%s=%q: %v", variable, test.value, err)
			}
		})
	}
}

// The printed command contains the proxy's password. A hostile DSN must not make it
// connect to another host, or add lines to it.
func TestProxy_DatabaseAddsNothingToPrintedCommand(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"a\thost=evil.example", "a\nhost=evil.example", "a\vport=1", `a' host='evil.example`, `a\`, "a\u00a0b", ""} {
		config, err := pgconn.ParseConfig("host=127.0.0.1 port=5433 dbname=" + quote.Conninfo(database) + " sslmode=disable")
		if err != nil || config.Host != "127.0.0.1" || config.Port != 5433 || database != "" && config.Database != database {
			t.Errorf("%q: %v", database, err)
		}
	}
	u, err := engine.NewUpstream("postgres://127.0.0.1/a%0AConnect:%1B[2J?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	b := &binding{address: listener.Address{Host: "127.0.0.1", Port: 5432}, upstream: &upstream{Upstream: u}}
	b.upstream.name = serversOf(u)
	var out strings.Builder
	printBanner(&terminal.Output{Writer: &out, Width: 80}, &plan{bindings: []*binding{b}})
	terminaltest.RequireHarmless(t, out.String())
	if strings.Contains(out.String(), "\nConnect:\x1b") || strings.Count(out.String(), "\nConnect:") != 1 {
		t.Errorf("got %s", &out)
	}
}

func TestProxy_BannerHasPasswordOnlyWhereItIsRequired(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("abstract Unix sockets exist only on Linux")
	}
	to, err := engine.NewUpstream("postgres://127.0.0.1/shop?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	banner := func(p *plan, addresses ...string) string {
		p.upstreams = []*upstream{{Upstream: to}}
		for _, text := range addresses {
			address, err := listener.Parse(text, defaultPort)
			if err != nil {
				t.Fatal(err)
			}
			p.bindings = append(p.bindings, &binding{address: address, upstream: p.upstreams[0]})
		}
		var out strings.Builder
		printBanner(&terminal.Output{Writer: &out, Width: 80}, p)
		_, commands, _ := strings.Cut(out.String(), "\n\n")
		return strings.TrimSuffix(commands, "\n\nCtrl-C stops the proxy.\n\n")
	}
	for _, test := range []struct {
		plan      *plan
		addresses []string
		want      string
	}{
		{
			&plan{password: password{value: "secret", from: passwordVariable}},
			[]string{"/run/a", "5433", "@b"},
			"Connect, with the password of ENTRAPG_PROXY_PASSWORD:\n\n  psql 'host=127.0.0.1 port=5433 dbname=shop sslmode=disable'\n" +
				"  psql 'host=@b port=5432 dbname=shop'\n\nConnect without a password:\n\n  psql 'host=/run/a port=5432 dbname=shop'",
		},
		{
			&plan{},
			[]string{"/run/a", "/run/a/x.sock"},
			"Connect:\n\n  psql 'host=/run/a port=5432 dbname=shop'\n" +
				"  # /run/a/x.sock: only for clients that take the path of a socket; psql needs a name such as .s.PGSQL.5432",
		},
	} {
		if got := banner(test.plan, test.addresses...); got != test.want {
			t.Errorf("%q:\n%s\nwant\n%s", test.addresses, got, test.want)
		}
	}
}

func TestProxy_NamesOfUpstreamsDistinguishThem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ dsns, want []string }{
		{[]string{"postgres://bob@127.0.0.1/a", "postgres://127.0.0.1/b"}, []string{"127.0.0.1:5432/a", "127.0.0.1:5432/b"}},
		{
			[]string{"postgres://bob@127.0.0.1/a", "postgres://ann@127.0.0.1/a", "postgres://127.0.0.1/a", "postgres://ann@127.0.0.1/a"},
			[]string{"bob@127.0.0.1:5432/a", "ann@127.0.0.1:5432/a", "127.0.0.1:5432/a", "ann@127.0.0.1:5432/a#2"},
		},
	} {
		var p plan
		for _, dsn := range test.dsns {
			u, err := engine.NewUpstream(dsn + "?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			p.upstreams = append(p.upstreams, &upstream{Upstream: u})
		}
		p.nameUpstreams()
		for i, u := range p.upstreams {
			if u.name != test.want[i] {
				t.Errorf("%s is named %s, want %s", test.dsns[i], u.name, test.want[i])
			}
		}
		p.close()
	}
}

func TestLog_DurationsHaveUnits(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		slog.New(newHandler(&out, format, slog.LevelInfo)).Info("ended", "duration", 100*time.Millisecond)
		if !strings.Contains(out.String(), "100ms") {
			t.Errorf("%s: %s", format, &out)
		}
	}
}

// A hangingCredential returns an error at once the first time, and later only after
// it is released.
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
	to, err := engine.NewUpstream("postgres://127.0.0.1/a?sslmode=disable", entrapg.WithCredential(credential), entrapg.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	defer close(credential.release)
	if err := to.RequestToken(t.Context()); err == nil {
		t.Fatal("got a token")
	}
	u := &upstream{Upstream: to}
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
	if n := strings.Count(string(stacks), "(*upstream).ready.func1()"); n != 1 {
		t.Errorf("%d goroutines request a token", n)
	}
}
