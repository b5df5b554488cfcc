package entrapg

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
)

// connectTimeout is the default of connect_timeout. database/sql opens
// connections without a deadline, and a server can accept a connection and then
// send nothing.
const connectTimeout = 30 * time.Second

// A config is a validated DSN, or existing configuration, with the options applied.
type config struct {
	pgx           *pgx.ConnConfig // without password, and without user if it is derived from the token
	settings      connstring.Settings
	keys          map[string]string // the DSN's keys that entrapg handles itself
	tls           tlsPolicy
	verifications verifications // InsecureSkipVerify configurations that the policy has created
	hostaddr      addresses
	password      func() string // with entra_credential=none, otherwise nil; a function so that no dump shows the password
	stdlib        []stdlib.OptionOpenDB

	noHost   bool // no host is set, so the host is pgx's default
	emptyDSN bool

	// credential and identity determine which tokens log in.
	credential *credentialSource
	identity   identityKey
}

// apply applies the options and the rules for TLS. If shared is true, connectors whose
// DSNs select the same credential share it.
func (c *config) apply(o *options, shared bool) error {
	c.stdlib = o.stdlib
	parsed, password := c.pgx.Config, c.pgx.Password
	for _, adjust := range o.adjust {
		adjust(c.pgx)
	}
	if c.pgx.DialFunc == nil || c.pgx.LookupFunc == nil || c.pgx.BuildFrontend == nil ||
		slices.Contains(c.pgx.Fallbacks, nil) {
		setting := "config"
		if len(o.adjust) > 0 {
			setting = "WithConnConfig"
		}
		return &ConfigError{
			Setting: setting,
			Problem: "DialFunc, LookupFunc, BuildFrontend and fallbacks must not be nil",
		}
	}
	if c.pgx.Password != password {
		return &ConfigError{Setting: "WithConnConfig", Problem: "must not set Password, which is the token; " +
			"a PostgreSQL password belongs in the DSN, with entra_credential=none"}
	}
	c.pgx.Password = ""
	c.dropReplacedSettings(&parsed)
	if err := c.checkSpace(); err != nil {
		return withOrigin(err, c.settings)
	}
	if err := c.checkUser(); err != nil {
		return err
	}
	for host, t := range endpoints(&c.pgx.Config) {
		if t != nil && t.ServerName == "" {
			c.tls.derived = append(c.tls.derived, host)
		}
	}
	if err := c.checkHostIsSet(); err != nil {
		return err
	}
	if err := c.tls.apply(&c.pgx.Config); err != nil {
		return withOrigin(err, c.settings)
	}
	c.verifications = verificationsOf(&c.pgx.Config)
	c.pgx.LookupFunc = boundedLookup(c.hostaddr.lookup(c.pgx.LookupFunc), c.pgx.ConnectTimeout)
	if c.tls.noEntra {
		c.password = func() string { return password }
		_, err := chooseCredential(c.keys, o, publicService)
		return withOrigin(err, c.settings)
	}
	return withOrigin(c.chooseIdentity(o, shared), c.settings)
}

// dropReplacedSettings removes the settings that the program has replaced in the
// parsed configuration. Errors must not report the origin of such a setting.
func (c *config) dropReplacedSettings(parsed *pgconn.Config) {
	for key, replaced := range map[string]bool{
		"user":            c.pgx.User != parsed.User,
		"host":            !slices.Equal(hosts(&c.pgx.Config), hosts(parsed)),
		"sslmode":         c.pgx.TLSConfig == nil && parsed.TLSConfig != nil,
		"channel_binding": c.pgx.ChannelBinding != parsed.ChannelBinding,
		"require_auth":    c.pgx.RequireAuth != parsed.RequireAuth,
	} {
		if replaced {
			delete(c.settings, key)
			c.noHost = c.noHost && key != "host"
		}
	}
}

// checkSpace returns an error if the user or the database begins or ends with white
// space, as values that come from a file often do. A space in the DSN must be escaped,
// so it is intended.
func (c *config) checkSpace() error {
	for _, setting := range []struct{ key, value string }{{"user", c.pgx.User}, {"dbname", c.pgx.Database}} {
		space := "\t\r\n"
		if foreignOrigin(c.settings, setting.key) != "" {
			space += " "
		}
		if strings.Trim(setting.value, space) != setting.value {
			return &ConfigError{
				Setting: setting.key,
				Problem: fmt.Sprintf("%q begins or ends with white space; remove it", setting.value),
			}
		}
	}
	return nil
}

// checkUser returns an error if no role can have the user's name, or if no user is
// set and there is no token to derive one from.
func (c *config) checkUser() error {
	if c.pgx.User == "" {
		if c.tls.noEntra {
			return &UsernameError{Problem: "with entra_credential=none there is no token to derive it from"}
		}
		return nil
	}
	err := claims.UsableName(c.pgx.User)
	if err == nil {
		return nil
	}
	subject := "the user"
	if origin := foreignOrigin(c.settings, "user"); origin != "" {
		subject += " from " + origin
	}
	return &UsernameError{Problem: subject + " cannot be the name of a role", Err: err}
}

// checkHostIsSet returns an error if no host is set, unless pgx's default may be used.
func (c *config) checkHostIsSet() error {
	switch {
	case !c.noHost:
		return nil
	case c.emptyDSN:
		return &ConfigError{
			Setting: "dsn",
			Problem: "no host is set, because the DSN and PGHOST are empty; set the variable that holds the DSN",
		}
	case isSocket(c.pgx.Host) && c.tls.sslmode != "disable" && !c.tls.noEntra:
		return &ConfigError{
			Setting: "host",
			Problem: "no host is set; set host or PGHOST to the server's name, " +
				"or sslmode=disable to use the local Unix socket",
		}
	}
	return nil
}

// chooseIdentity sets the credential that provides the tokens, and the key by which
// connectors share it.
func (c *config) chooseIdentity(o *options, shared bool) error {
	azure, err := commonService(hosts(&c.pgx.Config))
	if err != nil {
		return err
	}
	choice, err := chooseCredential(c.keys, o, azure)
	if err != nil {
		return err
	}
	if c.keys[keyScope] == "" && o.scope == "" {
		c.tls.service = azure
	}
	c.identity = identityKey{scope: cmp.Or(c.keys[keyScope], o.scope, azure.scope), management: azure.management}
	c.credential = choice.source(defaultDial)
	switch {
	case o.credential != nil:
		c.credential = sourceOf(o.credential)
		if reflect.ValueOf(o.credential).Comparable() {
			c.identity.credential = o.credential
		}
	case shared:
		c.identity.credential = choice
	}
	return nil
}

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

// readSettings applies c.settings and entrapg's own keys. It returns the dialer
// that they need, or nil.
func (c *config) readSettings(dsn, sslmode string) (dialer *net.Dialer, err error) {
	if c.settings.Value("connect_timeout") == "" && c.pgx.ConnectTimeout == 0 {
		c.pgx.ConnectTimeout = connectTimeout
	}
	delete(c.settings, "password")
	delete(c.settings, "sslpassword")
	if c.keys, err = takeKeys(c.pgx); err != nil {
		return nil, err
	}
	if dialer, err = takeParameters(c.pgx); err != nil {
		return nil, err
	}
	kind := defaultKind
	if name, ok := c.keys[keyCredential]; ok {
		if kind, err = parseCredentialKind(name); err != nil {
			return nil, err
		}
	}
	c.tls = tlsPolicy{
		sslmode: sslmode, hostaddr: c.hostaddr, sni: c.settings.Value("sslsni") != "0",
		noEntra: kind == noneKind,
	}
	if c.tls.noEntra {
		return dialer, nil
	}
	if connstring.InDSN(dsn).Value("password") != "" {
		return nil, passwordError("password")
	}
	c.pgx.Password = "" // from PGPASSWORD, a service file, a passfile or the program
	return dialer, nil
}

// takeKeys removes entrapg's own keys from the settings that pgx, which does not
// know them, would send to the server. It returns an error for unknown ones and
// for passwords under other names.
func takeKeys(config *pgx.ConnConfig) (map[string]string, error) {
	keys := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(config.RuntimeParams)) {
		switch name := strings.ToLower(key); {
		case slices.Contains([]string{"password", "passwd", "pass", "pwd", "pgpassword"}, name):
			return nil, passwordError(key)
		case name == "server" || strings.ContainsAny(key, ":/?;@"):
			return nil, errForeignDSN
		case slices.Contains(ownKeys, key):
			keys[key] = config.RuntimeParams[key]
			delete(config.RuntimeParams, key)
		case strings.HasPrefix(name, "pool_"): // pgxpool has removed those that it knows
			return nil, &ConfigError{Setting: key, Problem: "unknown to pgxpool, or not a setting of database/sql; " +
				"use PoolConfig, or the methods of sql.DB"}
		case strings.HasPrefix(name, "entra_"):
			return nil, &ConfigError{
				Setting: key,
				Problem: "unknown key; entrapg's keys are " + strings.Join(ownKeys, ", ") + ", in lower case",
			}
		}
	}
	return keys, nil
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
