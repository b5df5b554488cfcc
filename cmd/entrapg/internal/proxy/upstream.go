package proxy

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/monitor"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/inspect"
)

// An upstream is one of the engine, with a name and the state of its tokens.
type upstream struct {
	*engine.Upstream
	name   string
	dsn    string
	tokens monitor.Tokens

	requesting atomic.Bool // a token, by ready
}

// serversOf returns the hosts and the database of an upstream.
func serversOf(u *engine.Upstream) string {
	var servers []string
	for _, h := range inspect.Hosts(&u.Config().Config) {
		servers = append(servers, net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))))
	}
	return strings.TrimSuffix(strings.Join(servers, ",")+"/"+u.Config().Database, "/")
}

// userIsUnset reports whether neither the DSN nor the environment sets the user.
func (u *upstream) userIsUnset() bool { return u.Config().User == "" }

// ready returns an error if token requests have failed for too long. While they
// fail, it requests a token; otherwise an idle proxy would never become ready again.
func (u *upstream) ready(limit time.Duration) error {
	stats := u.Stats()
	failing, fails := u.tokens.Failing(time.Now(), stats.TokenFailures, stats.TokenExpiry)
	if !fails {
		return nil
	}
	if u.requesting.CompareAndSwap(false, true) { // a credential may hang while probes continue
		go func() {
			defer u.requesting.Store(false)
			u.RequestToken(context.Background())
		}()
	}
	if limit == 0 || failing < limit {
		return nil
	}
	return fmt.Errorf("no token for %s for %s", u.name, terminal.Duration(failing))
}
