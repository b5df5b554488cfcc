package entrapg

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
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
	c, err := parseDSN(dsn, parse)
	if err != nil {
		return nil, err
	}
	c.stdlib = o.stdlib
	password := c.pgx.Password
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
	switch {
	case c.pgx.User != "":
		if err := claims.UsableName(c.pgx.User); err != nil {
			return nil, &UsernameError{Problem: "the user that is set cannot be the name of a role", Err: err}
		}
	case c.tls.password:
		return nil, &UsernameError{Problem: "with entra_credential=none there is no token to derive it from"}
	}
	if err := c.tls.apply(&c.pgx.Config); err != nil {
		return nil, err
	}
	c.pgx.LookupFunc = boundedLookup(c.pgx.LookupFunc, c.pgx.ConnectTimeout)
	if c.tls.password {
		c.password = func() string { return password }
		_, err := chooseCredential(c.keys, o, publicCloud)
		return c, err
	}
	return c, c.chooseIdentity(o, shared)
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
	inDSN, settings := connstring.InDSN(dsn), connstring.Parse(dsn)
	if mode, ok := inDSN["sslmode"]; ok && mode.Value == "" {
		return nil, &ConfigError{Setting: "sslmode", Problem: "must not be empty; omit it for verify-full"}
	}
	sslmode := settings.Value("sslmode")
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
	parsed, err := parse(dsn)
	var invalid *ConfigError
	switch {
	case errors.As(err, &invalid):
		return nil, err
	case err != nil:
		return nil, parseError(err)
	}
	parsed.User = settings.Value("user")
	if settings.Value("connect_timeout") == "" {
		parsed.ConnectTimeout = connectTimeout
	}
	delete(settings, "password")
	delete(settings, "sslpassword")

	c := &config{pgx: parsed, settings: settings}
	if c.keys, err = takeKeys(parsed); err != nil {
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

var errForeignDSN = &ConfigError{Setting: "dsn", Problem: "not a DSN of pgx but perhaps of JDBC, ADO.NET or ODBC; use a postgres:// URL or key=value settings"}

var quotation = regexp.MustCompile(`(?s)".*"`)

// parseError returns a ConfigError with pgx's reason, without the DSN and
// without what pgx quotes from it: any part of a malformed DSN can be a piece of
// a password.
func parseError(err error) error {
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
	// Words that pgx quotes but that do not come from the DSN.
	text = strings.NewReplacer(`"="`, "=", `"sslcert"`, "sslcert", `"sslkey"`, "sslkey", "CA file", "CA file of sslrootcert").Replace(text)
	text = quotation.ReplaceAllString(text, `"…"`)
	if strings.Contains(text, "as keyword/value") {
		text += "; a DSN is a postgres:// URL or a list of key=value settings"
	}
	var cause error
	var path *fs.PathError
	if errors.As(err, &path) {
		cause = path
	}
	return &ConfigError{Setting: keyIn(text), Problem: "the DSN cannot be parsed: " + text, Err: cause}
}

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
