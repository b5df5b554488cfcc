package entrapg

import (
	"os/user"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/connstring"
)

// adoptConfig returns the config for a configuration that the program has parsed with
// pgx, and possibly changed. It parses the same DSN again to find out which values the
// program has changed. The others may be defaults of pgx, such as the operating
// system's user or a fallback to plaintext. It does not change existing.
func adoptConfig(existing *pgx.ConnConfig) (*config, error) {
	if !isParsed(existing) {
		return nil, &ConfigError{Setting: "config", Problem: "must be created by ParseConfig of pgx or pgxpool"}
	}
	dsn := existing.ConnString()
	settings := connstring.Parse(dsn)
	c, err := adoptSettings(existing, dsn, settings)
	return c, withOrigin(err, settings)
}

func adoptSettings(existing *pgx.ConnConfig, dsn string, settings connstring.Settings) (*config, error) {
	if connstring.Clean(dsn) != dsn {
		return nil, &ConfigError{
			Setting: "dsn",
			Problem: "begins or ends with white space, which pgx does not remove; use strings.TrimSpace before ParseConfig",
		}
	}
	if err := checkSyntax(dsn); err != nil {
		return nil, err
	}
	parsed, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, parseError(err, settings)
	}
	sslmode, chosen, err := effectiveSSLMode(dsn, settings)
	if err != nil {
		return nil, err
	}
	c := &config{
		pgx: existing.Copy(), settings: settings,
		noHost: settings.Value("host") == "", emptyDSN: strings.TrimSpace(dsn) == "",
	}
	if c.noHost && settings.Value("hostaddr") != "" {
		return nil, hostaddrError("not used without host in an existing configuration; set host too")
	}
	if c.hostaddr, _, err = parseAddresses(dsn, settings); err != nil {
		return nil, err
	}
	if isDefaultUser(existing.User, settings["user"]) {
		c.pgx.User = ""
	}
	c.dropReplacedSettings(&parsed.Config)
	dialer, err := c.readSettings(dsn, sslmode)
	if err != nil {
		return nil, err
	}
	if dialer != nil {
		return nil, &ConfigError{Setting: "keepalives", Problem: "not used with an existing configuration; set its DialFunc"}
	}
	c.tls.authority = rootsOf(&parsed.Config)
	for host, t := range endpoints(&c.pgx.Config) {
		if chosen && t != nil && !t.InsecureSkipVerify && t.ServerName != "" {
			c.tls.strict = append(c.tls.strict, host) // pgx leaves names unverified under require and verify-ca
		}
	}
	if !chosen {
		withoutDefaults(&c.pgx.Config, &parsed.Config, settings)
	}
	for _, t := range endpoints(&c.pgx.Config) {
		if t != nil && slices.Contains(hosts(&parsed.Config), t.ServerName) { // pgx has set it
			t.ServerName = ""
		}
	}
	return c, nil
}

// isDefaultUser reports whether name is the operating system's user, which is pgx's
// default. set is the current setting: PGUSER may have been set or changed since
// pgx read it.
func isDefaultUser(name string, set connstring.Setting) bool {
	if set.Value != "" && (set.Origin != "PGUSER" || set.Value == name) {
		return false
	}
	current, err := user.Current()
	if err != nil {
		return false
	}
	withoutDomain := strings.LastIndexByte(current.Username, '\\') + 1 // on Windows
	return name == current.Username[withoutDomain:]
}

// withoutDefaults removes pgx's defaults for a missing sslmode from config:
// fallbacks to plaintext, and the roots in the user's home directory. parsed is
// the configuration before the program changed it.
func withoutDefaults(config, parsed *pgconn.Config, settings connstring.Settings) {
	config.Fallbacks = slices.DeleteFunc(slices.Clone(config.Fallbacks), func(f *pgconn.FallbackConfig) bool {
		return f != nil && f.TLSConfig == nil && slices.ContainsFunc(parsed.Fallbacks, func(p *pgconn.FallbackConfig) bool {
			return p.TLSConfig == nil && p.Host == f.Host && p.Port == f.Port
		})
	})
	if settings.Value("sslrootcert") != "" || parsed.TLSConfig == nil || parsed.TLSConfig.RootCAs == nil {
		return
	}
	for _, t := range endpoints(config) {
		if t != nil && t.RootCAs.Equal(parsed.TLSConfig.RootCAs) {
			t.RootCAs = nil
		}
	}
}
