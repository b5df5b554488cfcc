package entrapg

import (
	"context"
	"crypto/tls"
	"iter"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// endpoints yields each host with its TLS configuration, which is nil for
// plaintext: the primary one, then the fallbacks.
func endpoints(config *pgconn.Config) iter.Seq2[string, *tls.Config] {
	return func(yield func(string, *tls.Config) bool) {
		if !yield(config.Host, config.TLSConfig) {
			return
		}
		for _, f := range config.Fallbacks {
			if !yield(f.Host, f.TLSConfig) {
				return
			}
		}
	}
}

// hosts returns all hosts of a configuration.
func hosts(config *pgconn.Config) []string {
	var all []string
	for host := range endpoints(config) {
		all = append(all, host)
	}
	return all
}

// boundedLookup returns a LookupFunc that takes at most timeout. pgx bounds
// dialing and the login, but not the lookup.
func boundedLookup(lookup pgconn.LookupFunc, timeout time.Duration) pgconn.LookupFunc {
	if timeout <= 0 {
		return lookup
	}
	return func(ctx context.Context, host string) ([]string, error) {
		if _, err := netip.ParseAddr(host); err == nil {
			return lookup(ctx, host)
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return lookup(ctx, host)
	}
}
