package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/certfile"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// A plan is the validated configuration of the proxy.
type plan struct {
	bindings     []*binding
	upstreams    []*upstream
	password     password // the zero value if no binding requires one
	passwordFile string   // of password, if it is from a file
	certificate  *certfile.Pair
	status       *listener.Address
	statusFrom   string // the setting of status

	clientUser        bool
	maxConnections    int
	limit             *engine.Limit // of maxConnections, if that is not 0
	grace             time.Duration
	readyWithoutToken time.Duration
	version           string // of this program
}

// nameUpstreams gives each upstream a unique name for logs and metrics: its servers and
// database. If several have the same, the user of the DSN or a number distinguishes them.
func (p *plan) nameUpstreams() {
	same := map[string]int{}
	for _, u := range p.upstreams {
		same[serversOf(u.Upstream)]++
	}
	taken := map[string]bool{}
	for _, u := range p.upstreams {
		base := serversOf(u.Upstream)
		if user := u.Config().User; same[base] > 1 && user != "" {
			base = user + "@" + base
		}
		u.name = base
		for n := 2; taken[u.name]; n++ {
			u.name = fmt.Sprintf("%s#%d", base, n)
		}
		taken[u.name] = true
	}
}

// passwordOf returns the password that clients of a binding need, or "".
func (p *plan) passwordOf(b *binding) string {
	if b.address.Private() {
		return ""
	}
	return p.password.value
}

// tlsConfig returns the configuration for clients of a binding, or nil.
func (p *plan) tlsConfig(b *binding) *tls.Config {
	if p.certificate == nil || b.address.Path != "" {
		return nil
	}
	return &tls.Config{GetCertificate: p.certificate.GetCertificate, MinVersion: tls.VersionTLS12}
}

// check logs in to each upstream once.
func (p *plan) check(ctx context.Context, out *terminal.Output) error {
	var failure error
	for _, u := range p.upstreams {
		start := time.Now()
		if err := u.Check(ctx); err != nil {
			failure = command.ErrReported
			out.Hang(out.Bad("✗ "), terminal.Sprintf("%s: %s", u.name, strings.TrimPrefix(err.Error(), "entrapg: ")))
			out.Printf("  run '%s' for an explanation and the fix\n", dsn.CommandLine("doctor", u.dsn))
			continue
		}
		out.Hang(out.Good("✓ "),
			terminal.Sprintf("%s: logged in as %s in %s", u.name, u.Stats().User, terminal.Milliseconds(time.Since(start))))
	}
	return failure
}

func (p *plan) close() {
	for _, u := range p.upstreams {
		u.Close()
	}
}
