package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// networkSteps resolve and dial the hosts.
type networkSteps struct{ *state }

func (n networkSteps) lookUp(ctx context.Context, f *finding) *problem {
	return n.each(f, func(e *endpoint) *problem {
		if e.network == "unix" {
			e.addresses = []string{e.host}
			return nil
		}
		ctx, cancel := n.limited(ctx)
		defer cancel()
		addresses, err := n.login.Config.LookupFunc(ctx, e.host)
		if err == nil && len(addresses) == 0 {
			err = errors.New("the name has no address")
		}
		if err != nil {
			return n.unknownHost(e, err)
		}
		e.addresses = addresses
		if slices.Equal(addresses, []string{e.host}) { // the host is an address
			return nil
		}
		f.note("%s is %s", e.host, describe(addresses, n.login.Azure))
		return nil
	})
}

// describe lists addresses, and whether they are private.
func describe(addresses []string, azure bool) string {
	text := strings.Join(addresses, ", ")
	addr, err := netip.ParseAddr(addresses[0])
	switch {
	case err != nil:
		return text
	case addr.IsLoopback():
		return text + ", this machine"
	case addr.IsPrivate() && azure:
		return text + ", private: a private endpoint or a virtual network"
	case addr.IsPrivate():
		return text + ", private"
	default:
		return text + ", public"
	}
}

func (n networkSteps) unknownHost(e *endpoint, err error) *problem {
	p := &problem{Error: err.Error(), Fix: []string{"nslookup " + quote.Shell(e.host)}}
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns) || !dns.IsNotFound:
		p.Explanation = "this machine's name server did not resolve " + e.host +
			"; check the network, and a VPN if there is one"
	case n.login.Azure:
		p.Explanation = "the name does not exist: it is misspelled, the server was deleted, or the server has a private " +
			"endpoint whose DNS zone is not linked to this network"
		p.Fix = []string{
			"# lists the names of your servers",
			"az postgres flexible-server list --query '[].fullyQualifiedDomainName' --output tsv",
		}
	default:
		p.Explanation = "the name does not exist; check host, which comes from " + n.origin("host")
	}
	return p
}

func (n networkSteps) dial(ctx context.Context, f *finding) *problem {
	return n.each(f, func(e *endpoint) *problem {
		var all []string
		var last error
		for _, address := range e.addresses {
			ctx, cancel := n.limited(ctx)
			start := time.Now()
			network, target := pgconn.NetworkAddress(address, e.port)
			conn, err := n.login.Config.DialFunc(ctx, network, target)
			cancel()
			if err == nil {
				e.conn = conn
				f.note("%s in %s", target, terminal.Milliseconds(time.Since(start)))
				if len(all) > 0 {
					f.warn(&problem{
						Error:       strings.Join(all, "\n"),
						Explanation: "a program waits for these addresses of " + e.host + " before it tries the next one",
					})
				}
				return nil
			}
			text := err.Error()
			if isTimeout(err) {
				text = fmt.Sprintf("%s does not answer within %v", target, n.answerTimeout())
			}
			all, last = append(all, text), err
		}
		p := n.unreachable(e, last)
		p.Error = strings.Join(all, "\n")
		return p
	})
}

func (n networkSteps) unreachable(e *endpoint, err error) *problem {
	p := &problem{Error: err.Error()}
	server, azure := serverName(e.host), n.login.Azure
	switch {
	case e.network == "unix":
		p.Explanation = fmt.Sprintf(
			"no server listens on this socket; check host (from %s) and port, and that the server runs", n.origin("host"))
		p.Fix = []string{
			"# shows the sockets in this directory: the number is the port",
			"ls -d " + quote.Shell(strings.TrimSuffix(e.host, "/")) + "/.s.PGSQL.*",
		}
	case errors.Is(err, errRefused) && azure:
		p.Explanation = fmt.Sprintf("nothing listens on port %d. Azure servers run PostgreSQL on port 5432, "+
			"and PgBouncer on port 6432 if it is enabled; or the server is stopped", e.port)
		p.Fix = []string{"az postgres flexible-server start --name " + server + " --resource-group " + resourceGroup(server)}
	case errors.Is(err, errRefused):
		p.Explanation = fmt.Sprintf("nothing listens on port %d of %s; check host and port, and that the server runs",
			e.port, e.host)
		p.Fix = []string{e.isReady()}
	case isTimeout(err) && azure:
		p.Explanation = "the server's firewall does not accept this machine's address, or the server has private access and " +
			"this machine is outside its network, or the server is stopped"
		p.Fix = fixes(n).firewall(server)
	case isTimeout(err):
		p.Explanation = "a firewall drops the packets, or no machine has this address"
		p.Fix = []string{e.isReady()}
	default:
		p.Explanation = "this address cannot be reached; check the network, and a VPN if there is one"
		p.Fix = []string{e.isReady()}
	}
	return p
}
