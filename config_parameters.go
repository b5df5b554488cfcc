package entrapg

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/internal/inspect"
)

// An unsupportedKey is a key of libpq or of another driver that pgx does not
// know. pgx would send it to the server, which rejects the login.
type unsupportedKey struct {
	harmless []string // values that, like an empty one, change nothing
	problem  string
	use      string // the key with the same meaning, or empty
}

func (k unsupportedKey) err(key string) error {
	problem := k.problem
	if k.use != "" {
		problem += "; use " + k.use
	}
	return &ConfigError{Setting: key, Problem: problem, fix: inspect.Fix{Key: k.use, Remove: k.use == ""}}
}

const (
	noOAuth      = "not supported; omit it, the token comes from entra_credential"
	noRevocation = "revocation lists are not supported; omit it, or, in a program, set TLSConfig.VerifyConnection by WithConnConfig"
	noSCRAMKey   = "logging in with a SCRAM key is not supported; omit it"
	notAKey      = "not a key of a DSN"
)

var unsupportedKeys = map[string]unsupportedKey{
	"gssencmode":    {harmless: []string{"disable", "prefer"}, problem: "encryption by GSSAPI is not supported; omit it, TLS is used"},
	"gssdelegation": {harmless: []string{"0"}, problem: "authentication by GSSAPI is not used; omit it"},
	"gsslib":        {problem: "authentication by GSSAPI is not used; omit it"},
	"load_balance_hosts": {
		harmless: []string{"disable"},
		problem:  "not supported; omit it, or, in a program, use stdlib.RandomizeHostOrderFunc as a BeforeConnect hook",
	},
	"oauth_ca_file":       {problem: noOAuth},
	"oauth_client_id":     {problem: "not supported", use: "entra_client_id"},
	"oauth_client_secret": {problem: "not supported; use entra_credential=environment"},
	"oauth_issuer":        {problem: noOAuth},
	"oauth_scope":         {problem: "not supported", use: "entra_scope"},
	"requirepeer":         {problem: "not supported; omit it, or use TLS with sslmode=verify-full"},
	"requiressl":          {problem: "obsolete", use: "sslmode"},
	"scram_client_key":    {problem: noSCRAMKey},
	"scram_server_key":    {problem: noSCRAMKey},
	"sslcompression":      {harmless: []string{"0"}, problem: "compression by TLS is not supported; omit it"},
	"sslcrl":              {problem: noRevocation},
	"sslcrldir":           {problem: noRevocation},
	"sslkeylogfile":       {problem: "not supported; omit it, or, in a program, set TLSConfig.KeyLogWriter by WithConnConfig"},
	"tcp_user_timeout": {
		harmless: []string{"0"},
		problem:  "not supported; use keepalives_idle, or, in a program, a DialFunc set by WithConnConfig",
	},

	// Obsolete keys of libpq.
	"authtype": {problem: "obsolete; omit it"},
	"tty":      {problem: "obsolete; omit it"},

	// Keys of lib/pq.
	"binary_parameters":              {harmless: []string{"no"}, problem: "a setting of lib/pq; use default_query_exec_mode"},
	"disable_prepared_binary_result": {harmless: []string{"no"}, problem: "a setting of lib/pq; omit it"},
	"sslinline":                      {harmless: []string{"false"}, problem: "a setting of lib/pq; name files in sslcert and sslkey"},

	// Names that other drivers use for keys.
	"db":       {problem: notAKey, use: "dbname"},
	"hostname": {problem: notAKey, use: "host"},
	"ssl":      {problem: notAKey, use: "sslmode"},
	"ssl_mode": {problem: notAKey, use: "sslmode"},
	"uid":      {problem: notAKey, use: "user"},
	"username": {problem: notAKey, use: "user"},
}

// connectionKeys are the keys that clients handle. A misspelling such as Host is an
// error. Keys of the server, such as TimeZone, may have any case.
var connectionKeys = []string{
	"connect_timeout", "database", "dbname", "host", "hostaddr", "passfile", "port", "service",
	"sslcert", "sslkey", "sslmode", "sslrootcert", "user",
}

// takeParameters removes the settings that the server does not know from those
// that pgx would send to it. It applies the ones that have a counterpart in Go,
// drops the ones that change nothing and returns an error for the others. It
// returns the dialer for the keepalive settings, or nil.
func takeParameters(config *pgx.ConnConfig) (*net.Dialer, error) {
	params := config.RuntimeParams
	for _, key := range slices.Sorted(maps.Keys(params)) {
		lower := strings.ToLower(key)
		if lower != key && slices.Contains(connectionKeys, lower) {
			return nil, &ConfigError{Setting: key, Problem: "unknown key; use " + lower + ", in lower case", fix: inspect.Fix{Key: lower}}
		}
		known, ok := unsupportedKeys[lower]
		if !ok {
			continue
		}
		if value := params[key]; value != "" && !slices.Contains(known.harmless, value) {
			return nil, known.err(key)
		}
		delete(params, key)
	}
	if fallback, ok := take(params, "fallback_application_name"); ok && params["application_name"] == "" {
		params["application_name"] = fallback
	}
	if params["client_encoding"] == "auto" { // libpq takes it from the locale; Go's strings are UTF-8
		params["client_encoding"] = "UTF8"
	}
	delete(params, "hostaddr") // see parseAddresses
	if err := takeTLSVersions(config); err != nil {
		return nil, err
	}
	return takeKeepalives(params)
}

// take removes a parameter and returns its value. ok is false if it is not set.
func take(params map[string]string, key string) (value string, ok bool) {
	value, ok = params[key]
	delete(params, key)
	return value, ok && value != ""
}

// takeKeepalives returns a dialer with libpq's settings for TCP keepalives, or nil
// if none is set.
func takeKeepalives(params map[string]string) (*net.Dialer, error) {
	values := map[string]int{"keepalives": 1, "keepalives_idle": 0, "keepalives_interval": 0, "keepalives_count": 0}
	set := false
	for _, key := range slices.Sorted(maps.Keys(values)) {
		text, ok := take(params, key)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, &ConfigError{Setting: key, Problem: fmt.Sprintf("%q is not a number of 0 or more", text)}
		}
		values[key] = n
		set = set || key != "keepalives" || n == 0
	}
	if !set {
		return nil, nil
	}
	// Zero selects Go's defaults here, and the system's in libpq. Go's are shorter.
	return &net.Dialer{KeepAlive: -1, KeepAliveConfig: net.KeepAliveConfig{
		Enable:   values["keepalives"] != 0,
		Idle:     time.Duration(values["keepalives_idle"]) * time.Second,
		Interval: time.Duration(values["keepalives_interval"]) * time.Second,
		Count:    values["keepalives_count"],
	}}, nil
}

// tlsVersions are TLS versions by libpq's names. 0 means Go's default, which excludes
// versions before 1.2.
var tlsVersions = map[string]uint16{"tlsv1": 0, "tlsv1.1": 0, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13}

// takeTLSVersions removes libpq's settings for TLS versions and applies them.
func takeTLSVersions(config *pgx.ConnConfig) error {
	const minKey, maxKey = "ssl_min_protocol_version", "ssl_max_protocol_version"
	limits := map[string]uint16{}
	for _, key := range []string{minKey, maxKey} {
		text, ok := take(config.RuntimeParams, key)
		if !ok {
			continue
		}
		version, ok := tlsVersions[strings.ToLower(text)]
		switch {
		case !ok:
			return &ConfigError{Setting: key, Problem: fmt.Sprintf("unknown version %q; use TLSv1.2 or TLSv1.3", text)}
		case key == maxKey && version == 0:
			return &ConfigError{Setting: key, Problem: fmt.Sprintf("%s is not safe; use TLSv1.2 or TLSv1.3", text)}
		case key == maxKey && version < limits[minKey]:
			return &ConfigError{Setting: key, Problem: fmt.Sprintf("%s is less than %s", text, minKey)}
		}
		limits[key] = version
	}
	for _, c := range endpoints(&config.Config) {
		if c != nil && limits[minKey] != 0 {
			c.MinVersion = limits[minKey]
		}
		if c != nil && limits[maxKey] != 0 {
			c.MaxVersion = limits[maxKey]
		}
	}
	return nil
}

// poolKeys are the settings of pgxpool.
var poolKeys = []string{
	"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime_jitter", "pool_max_conn_lifetime",
	"pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout",
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
			if slices.Contains(poolKeys, key) {
				return nil, &ConfigError{
					Setting: key,
					Problem: "a setting of pgxpool; use PoolConfig, or the methods of sql.DB",
				}
			}
			return nil, &ConfigError{
				Setting: key,
				Problem: "unknown key; pgxpool's keys are " + strings.Join(poolKeys, ", "),
			}
		case strings.HasPrefix(name, "entra_"):
			return nil, &ConfigError{
				Setting: key,
				Problem: "unknown key; entrapg's keys are " + strings.Join(ownKeys, ", ") + ", in lower case",
			}
		}
	}
	return keys, nil
}
