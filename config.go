package entrapg

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
)

// connectTimeout is the default of connect_timeout. database/sql opens
// connections without a deadline, and a server can accept a connection and then
// send nothing.
const connectTimeout = 30 * time.Second

// A config is what a login needs: a DSN and options, validated.
type config struct {
	pgx      *pgx.ConnConfig // without password, and without user if it is derived from the token
	settings connstring.Settings
	keys     map[string]string // of the DSN, those that entrapg handles itself
	tls      tlsPolicy
	hosts    addresses     // of hostaddr
	password func() string // with entra_credential=none, otherwise nil; a function so that no dump shows the password
	stdlib   []stdlib.OptionOpenDB

	// credential and identity choose whose tokens log in.
	credential *lazyCredential
	identity   identityKey
}

// newConfig returns the configuration for a DSN, which parse parses as pgx or
// pgxpool do, and options. If shared is true, connectors whose DSNs choose the
// same credential share it.
func newConfig(dsn string, o *options, shared bool, parse func(string) (*pgx.ConnConfig, error)) (*config, error) {
	dsn = connstring.Clean(dsn)
	c, err := parseDSN(dsn, parse)
	if err != nil {
		return nil, err
	}
	c.stdlib = o.stdlib
	parsed, password := c.pgx.Config, c.pgx.Password
	for _, adjust := range o.adjust {
		adjust(c.pgx)
	}
	if c.pgx.DialFunc == nil || c.pgx.LookupFunc == nil || c.pgx.BuildFrontend == nil || slices.Contains(c.pgx.Fallbacks, nil) {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "DialFunc, LookupFunc, BuildFrontend and fallbacks must not be nil"}
	}
	if c.pgx.Password != password {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "must not set Password, which is the token; a PostgreSQL password belongs in the DSN, with entra_credential=none"}
	}
	c.pgx.Password = ""
	c.forgetReplaced(&parsed)
	if err := c.checkUser(); err != nil {
		return nil, err
	}
	if err := c.applyTLS(dsn, &parsed); err != nil {
		return nil, located(err, c.settings)
	}
	c.pgx.LookupFunc = boundedLookup(c.hosts.lookup(c.pgx.LookupFunc), c.pgx.ConnectTimeout)
	if c.tls.password {
		c.password = func() string { return password }
		_, err := chooseCredential(c.keys, o, publicCloud)
		return c, located(err, c.settings)
	}
	return c, located(c.chooseIdentity(o, shared), c.settings)
}

// forgetReplaced removes the settings that the program has replaced in the
// parsed configuration, so that no error names where they came from.
func (c *config) forgetReplaced(parsed *pgconn.Config) {
	for key, replaced := range map[string]bool{
		"user":            c.pgx.User != parsed.User,
		"host":            !slices.Equal(hosts(&c.pgx.Config), hosts(parsed)),
		"sslmode":         c.pgx.TLSConfig == nil && parsed.TLSConfig != nil,
		"channel_binding": c.pgx.ChannelBinding != parsed.ChannelBinding,
		"require_auth":    c.pgx.RequireAuth != parsed.RequireAuth,
	} {
		if replaced {
			delete(c.settings, key)
		}
	}
}

// checkUser returns an error if no role can have the user's name, or if there is
// no way to find one.
func (c *config) checkUser() error {
	if c.pgx.User == "" {
		if c.tls.password {
			return &UsernameError{Problem: "with entra_credential=none there is no token to derive it from"}
		}
		return nil
	}
	err := claims.UsableName(c.pgx.User)
	if err == nil {
		return nil
	}
	by := "is set"
	if origin := foreignOrigin(c.settings, "user"); origin != "" {
		by = origin + " sets"
	}
	return &UsernameError{Problem: "the user that " + by + " cannot be the name of a role", Err: err}
}

// applyTLS applies the rules for TLS. It returns an error if no host is set, and
// the configuration has pgx's default instead.
func (c *config) applyTLS(dsn string, parsed *pgconn.Config) error {
	err := c.tls.apply(&c.pgx.Config)
	var invalid *ConfigError
	switch {
	case c.settings.Value("host") != "" || !slices.Equal(hosts(&c.pgx.Config), hosts(parsed)):
		return err
	case strings.TrimSpace(dsn) == "":
		return &ConfigError{
			Setting: "dsn",
			Problem: "no host is set, because the DSN and PGHOST are empty; is the variable that holds the DSN empty?",
		}
	case errors.As(err, &invalid) && invalid.Setting == "host":
		return &ConfigError{
			Setting: "host",
			Problem: "no host is set; set host or PGHOST to the server's name, or sslmode=disable to use the local Unix socket",
		}
	}
	return err
}

// located returns a ConfigError with the origin of its setting, if that is not
// the DSN, and other errors as they are.
func located(err error, settings connstring.Settings) error {
	var invalid *ConfigError
	if !errors.As(err, &invalid) {
		return err
	}
	origin := foreignOrigin(settings, invalid.Setting)
	if origin == "" {
		return err
	}
	return &ConfigError{Setting: invalid.Setting, Origin: origin, Problem: invalid.Problem, Err: invalid.Err}
}

// foreignOrigin returns where a setting comes from, or "" if it is not set or
// comes from the DSN.
func foreignOrigin(settings connstring.Settings, key string) string {
	if origin := settings[key].Origin; origin != connstring.OriginDSN {
		return origin
	}
	return ""
}

// chooseIdentity sets whose tokens log in, and who shares them.
func (c *config) chooseIdentity(o *options, shared bool) error {
	azure, err := commonCloud(hosts(&c.pgx.Config))
	if err != nil {
		return err
	}
	choice, err := chooseCredential(c.keys, o, azure)
	if err != nil {
		return err
	}
	c.identity = identityKey{scope: cmp.Or(c.keys[keyScope], o.scope, azure.scope), management: azure.management}
	c.credential = choice.lazy(defaultDial)
	switch {
	case o.credential != nil:
		c.credential = givenCredential(o.credential)
		if reflect.ValueOf(o.credential).Comparable() {
			c.identity.credential = o.credential
		}
	case shared:
		c.identity.credential = choice
	}
	return nil
}

// parseDSN parses a DSN. To pgx's result it adds what that does not tell:
// whether the user and sslmode were set, or are defaults, which it replaces by
// safer ones.
func parseDSN(dsn string, parse func(string) (*pgx.ConnConfig, error)) (*config, error) {
	if err := misread(dsn); err != nil {
		return nil, err
	}
	settings := connstring.Parse(dsn)
	c, err := parseSettings(dsn, settings, parse)
	if err != nil {
		return nil, located(err, settings)
	}
	return c, nil
}

func parseSettings(
	dsn string, settings connstring.Settings, parse func(string) (*pgx.ConnConfig, error),
) (*config, error) {
	inDSN := connstring.InDSN(dsn)
	sslmode, err := parseSSLMode(settings, inDSN)
	if err != nil {
		return nil, err
	}
	if sslmode == "" {
		sslmode = "verify-full"
		dsn = connstring.WithDefault(dsn, "sslmode", sslmode)
		if settings.Value("sslrootcert") == "" { // the system's roots, not ~/.postgresql/root.crt
			dsn = connstring.WithDefault(dsn, "sslrootcert", "")
		}
	}
	if settings.Value("sslrootcert") == "system" {
		sslmode = "verify-full" // as in libpq
	}
	addrs, dsn, err := parseAddresses(dsn, settings)
	if err != nil {
		return nil, err
	}
	parsed, err := parse(dsn)
	var invalid *ConfigError
	switch {
	case errors.As(err, &invalid):
		return nil, err
	case err != nil:
		return nil, parseError(err, settings)
	}
	parsed.User = settings.Value("user")
	if settings.Value("connect_timeout") == "" {
		parsed.ConnectTimeout = connectTimeout
	}
	delete(parsed.RuntimeParams, "hostaddr")
	delete(settings, "password")
	delete(settings, "sslpassword")

	c := &config{pgx: parsed, settings: settings, hosts: addrs}
	if c.keys, err = takeKeys(parsed); err != nil {
		return nil, err
	}
	if err := takeParameters(parsed); err != nil {
		return nil, err
	}
	kind := noneKind
	if name, ok := c.keys[keyCredential]; !ok {
		kind = defaultKind
	} else if kind, err = parseCredentialKind(name); err != nil {
		return nil, err
	}
	c.tls = tlsPolicy{sslmode: sslmode, sni: settings.Value("sslsni") != "0", password: kind == noneKind}
	if c.tls.password {
		return c, nil
	}
	if inDSN.Value("password") != "" {
		return nil, passwordError("password")
	}
	parsed.Password = "" // from PGPASSWORD, a service file or a passfile
	c.tls.reset(&parsed.Config)
	return c, nil
}

var (
	sslmodes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

	// word matches values that can be quoted in errors. Others may be a piece of a
	// password in a malformed DSN.
	word = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,20}$`)
)

// parseSSLMode returns the sslmode in effect, or "" if none is set.
func parseSSLMode(settings, inDSN connstring.Settings) (string, error) {
	if mode, ok := inDSN["sslmode"]; ok && mode.Value == "" {
		return "", &ConfigError{Setting: "sslmode", Problem: "must not be empty; omit it for verify-full"}
	}
	mode := settings.Value("sslmode")
	if mode == "" || slices.Contains(sslmodes, mode) {
		return mode, nil
	}
	problem := "unknown mode"
	if word.MatchString(mode) {
		problem = fmt.Sprintf("unknown mode %q", mode)
	}
	problem += "; use verify-full, which is the default, or another of " + strings.Join(sslmodes, ", ")
	return "", &ConfigError{Setting: "sslmode", Problem: problem}
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
		case strings.HasPrefix(name, "entra_"):
			return nil, &ConfigError{Setting: key, Problem: "unknown key; entrapg's keys are " + strings.Join(ownKeys, ", ") + ", in lower case"}
		}
	}
	return keys, nil
}

func passwordError(key string) error {
	return &ConfigError{Setting: key, Problem: "the DSN must not contain a password; remove it, entrapg logs in with Microsoft Entra tokens"}
}

var quotation = regexp.MustCompile(`(?s)".*"`)

// parseError returns a ConfigError with pgx's reason, without the DSN and
// without what pgx quotes from it: any part of a malformed DSN can be a piece of
// a password. It quotes the value of the setting if that is a plain word.
func parseError(err error, settings connstring.Settings) error {
	text, detail := err.Error(), ""
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		// pgx writes: cannot parse `DSN`: problem (detail).
		if cause := parse.Unwrap(); cause != nil {
			detail = " (" + cause.Error() + ")"
		}
		text = strings.TrimSuffix(text, detail)
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}
		text += detail
	}
	text = pgxWords.Replace(text)
	text = quotation.ReplaceAllString(text, `"…"`)
	if !strings.Contains(text, "(") { // pgx quotes a value twice
		text = strings.TrimSuffix(text, ")")
	}
	e := &ConfigError{Setting: keyIn(text), Problem: text}
	value := settings.Value(e.Setting)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		e.Err = path
	case slices.Contains([]string{"sslrootcert", "sslcert", "sslkey"}, e.Setting) && value != "":
		e.Problem += "; the file is " + value
	case e.Setting == "dsn" && strings.Contains(text, "as keyword/value"):
		e.Problem = "cannot be parsed: " + text + "; a DSN is a postgres:// URL or a list of key=value settings"
	case e.Setting == "dsn":
		e.Problem = "cannot be parsed: " + text
	case word.MatchString(value) && e.Setting != "port": // a URL without a host has a password there
		e.Problem = strings.Replace(text, `"…"`, strconv.Quote(value), 1)
	}
	return e
}

// pgxWords replaces what pgx quotes but does not come from the DSN, and names
// the setting where pgx does not.
var pgxWords = strings.NewReplacer(`"="`, "=", `"sslcert"`, "sslcert", `"sslkey"`, "sslkey",
	"CA file", "CA file of sslrootcert", "add CA to", "add CA of sslrootcert to",
	"read cert", "read sslcert", "load cert", "load sslcert", "decrypt key", "decrypt sslkey")

// keyIn returns the DSN's key that pgx's message mentions first, or "dsn".
func keyIn(text string) string {
	key, first := "dsn", len(text)
	for _, k := range []string{
		"port", "sslmode", "sslrootcert", "sslcertmode", "sslcert", "sslkey", "connect_timeout", "target_session_attrs", "channel_binding", "require_auth",
		"min_protocol_version", "max_protocol_version", "service", "statement_cache_capacity", "description_cache_capacity", "default_query_exec_mode",
		"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout",
	} {
		if i := strings.Index(text, k); i >= 0 && i < first {
			key, first = k, i
		}
	}
	return key
}
