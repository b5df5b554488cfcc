package proxy

import (
	"context"
	"errors"
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
	f := &front{address: listener.Address{Host: "127.0.0.1", Port: 5432}, upstream: &upstream{Upstream: u}}
	f.upstream.name = serversOf(u)
	var out strings.Builder
	printBanner(&terminal.Output{Writer: &out, Width: 80}, &plan{fronts: []*front{f}})
	terminaltest.RequireHarmless(t, out.String())
	if strings.Contains(out.String(), "\nConnect:\x1b") || strings.Count(out.String(), "\nConnect:") != 1 {
		t.Errorf("got %s", &out)
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
