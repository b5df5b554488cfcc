package inspect

import "github.com/jackc/pgx/v5/pgconn"

// Hosts returns the hosts of a configuration, in the order in which pgx tries them. A host that
// pgx tries with and without TLS, as with sslmode=prefer, is one host, with the TLSConfig of the
// first attempt.
func Hosts(config *pgconn.Config) []*pgconn.FallbackConfig {
	all := []*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}
	again := false
	for _, f := range config.Fallbacks {
		last := all[len(all)-1]
		again = !again && f.Host == last.Host && f.Port == last.Port && (f.TLSConfig == nil) != (last.TLSConfig == nil)
		if !again {
			all = append(all, f)
		}
	}
	return all
}
