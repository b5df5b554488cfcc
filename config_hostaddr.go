package entrapg

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/connstring"
)

// addresses are the addresses of hostaddr, by host. As in libpq, the address is
// dialed without a lookup, and the certificate is verified against the host.
type addresses map[string]string

// parseAddresses returns the addresses of hostaddr, and the DSN with the
// addresses as hosts if no host is set.
func parseAddresses(dsn string, settings connstring.Settings) (addresses, string, error) {
	list := settings.Value("hostaddr")
	if list == "" {
		return nil, dsn, nil
	}
	if settings.Value("host") == "" {
		dsn = connstring.WithDefault(dsn, "host", list)
		settings["host"] = settings["hostaddr"]
	}
	hosts, addrs := strings.Split(settings.Value("host"), ","), strings.Split(list, ",")
	if len(addrs) != len(hosts) {
		return nil, "", hostaddrError("host and hostaddr have %d and %d elements; set an address for each host",
			len(hosts), len(addrs))
	}
	all := addresses{}
	for i, addr := range addrs {
		host := hosts[i]
		_, err := netip.ParseAddr(addr)
		other, again := all[host]
		switch {
		case addr != "" && err != nil:
			return nil, "", hostaddrError("must be IP addresses; set names in host")
		case addr != "" && isSocket(host):
			return nil, "", hostaddrError("has an address for host %q, which is a Unix socket; leave it empty", host)
		case again && other != addr:
			return nil, "", hostaddrError("has two addresses for host %q; use a name for each", host)
		}
		all[host] = addr
	}
	return all, dsn, nil
}

func hostaddrError(format string, args ...any) error {
	return &ConfigError{Setting: "hostaddr", Problem: fmt.Sprintf(format, args...)}
}

// lookup returns a LookupFunc that uses next for all other hosts.
func (a addresses) lookup(next pgconn.LookupFunc) pgconn.LookupFunc {
	if a == nil {
		return next
	}
	return func(ctx context.Context, host string) ([]string, error) {
		if addr := a[host]; addr != "" {
			return []string{addr}, nil
		}
		return next(ctx, host)
	}
}
