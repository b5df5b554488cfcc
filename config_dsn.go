package entrapg

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg/internal/connstring"
)

// parseDSN parses a DSN. It determines whether the user and sslmode are set, which
// pgx's result does not contain, and replaces pgx's defaults with safer ones.
func parseDSN(dsn string, parse func(string) (*pgx.ConnConfig, error)) (*config, error) {
	dsn = connstring.Clean(dsn)
	settings := connstring.Parse(dsn)
	c, err := parseSettings(dsn, settings, parse)
	return c, withOrigin(err, settings)
}

func parseSettings(
	dsn string, settings connstring.Settings, parse func(string) (*pgx.ConnConfig, error),
) (*config, error) {
	if err := checkSyntax(dsn); err != nil {
		return nil, err
	}
	c := &config{settings: settings, emptyDSN: strings.TrimSpace(dsn) == ""}
	sslmode, chosen, err := effectiveSSLMode(dsn, settings)
	if err != nil {
		return nil, err
	}
	if !chosen {
		dsn = connstring.WithDefault(dsn, "sslmode", sslmode)
		if settings.Value("sslrootcert") == "" { // the system's roots, not ~/.postgresql/root.crt
			dsn = connstring.WithDefault(dsn, "sslrootcert", "")
		}
	}
	if c.hostaddr, dsn, err = parseAddresses(dsn, settings); err != nil {
		return nil, err
	}
	c.noHost = settings.Value("host") == ""
	c.pgx, err = parse(dsn)
	if err != nil {
		return nil, parseError(err, settings)
	}
	c.pgx.User = settings.Value("user")
	dialer, err := c.readSettings(dsn, sslmode)
	if err != nil {
		return nil, err
	}
	if dialer != nil {
		c.pgx.DialFunc = dialer.DialContext
	}
	c.tls.authority = rootsOf(&c.pgx.Config)
	if !c.tls.noEntra {
		c.tls.reset(&c.pgx.Config)
	}
	return c, nil
}

// rootsOf returns the roots that pgx has read from sslrootcert or its default, or
// nil.
func rootsOf(parsed *pgconn.Config) *x509.CertPool {
	for _, t := range endpoints(parsed) {
		if t != nil && t.RootCAs != nil {
			return t.RootCAs
		}
	}
	return nil
}

// parsePool returns a function that parses a DSN for pgxpool into pool.
func parsePool(pool *pgxpool.Config) func(dsn string) (*pgx.ConnConfig, error) {
	return func(dsn string) (*pgx.ConnConfig, error) {
		parsed, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return nil, err
		}
		*pool = *parsed
		return pool.ConnConfig, nil
	}
}

var (
	// sslmodes are pgx's modes. A token is never sent under allow or prefer.
	sslmodes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

	// plainWord matches values that errors may quote. Any other value in a malformed
	// DSN can be a piece of a password.
	plainWord = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,20}$`)
)

// effectiveSSLMode returns the sslmode for a token. chosen reports whether it is
// set; otherwise it is the default.
func effectiveSSLMode(dsn string, settings connstring.Settings) (mode string, chosen bool, err error) {
	if mode, ok := connstring.InDSN(dsn)["sslmode"]; ok && mode.Value == "" {
		return "", false, &ConfigError{Setting: "sslmode", Problem: "must not be empty; omit it for verify-full"}
	}
	switch mode := settings.Value("sslmode"); {
	case mode == "":
		return "verify-full", false, nil
	case !slices.Contains(sslmodes, mode):
		problem := "unknown mode"
		if plainWord.MatchString(mode) {
			problem = fmt.Sprintf("unknown mode %q", mode)
		}
		problem += "; use verify-full, which is the default, verify-ca or require, or disable for loopback and Unix sockets"
		return "", false, &ConfigError{Setting: "sslmode", Problem: problem}
	case settings.Value("sslrootcert") == "system": // as in libpq
		return "verify-full", true, nil
	default:
		return mode, true, nil
	}
}
