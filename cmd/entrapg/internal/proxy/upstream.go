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
	config := u.Config()
	servers := []string{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	for _, f := range config.Fallbacks {
		server := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
		if server != servers[len(servers)-1] {
			servers = append(servers, server)
		}
	}
	return strings.TrimSuffix(strings.Join(servers, ",")+"/"+config.Database, "/")
}

// leavesUserOpen reports whether no setting determines the user of the server.
func (u *upstream) leavesUserOpen() bool { return u.Config().User == "" }

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
