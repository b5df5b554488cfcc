package entrapg

import (
	"errors"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connectTimeout bounds an attempt to log in to a host that takes the connection
// and then says nothing: database/sql opens connections without a deadline.
const connectTimeout = 30 * time.Second

// target is where and how to log in: what a DSN comes to once pgx has parsed it.
type target struct {
	config     *pgx.ConnConfig // User is empty where it is to be derived
	sslmode    string
	said       map[string]string // what it takes from the DSN, its service and PG* variables, but no secret
	credential *credentialKind   // nil where the DSN has no entra_credential
	entra      map[string]string // what the DSN says under entrapg's own keys
}

// parseDSN has parse, which is pgx's or pgxpool's, make the configuration, and
// adds what pgx cannot tell: whether the user and sslmode were chosen or are
// pgx's own defaults, which entrapg replaces by safer ones.
func parseDSN(dsn string, parse func(string) (*pgx.ConnConfig, error)) (*target, error) {
	inDSN, query := scan(dsn)
	env := environment()
	said := merge(env, service(merge(env, inDSN)), inDSN)
	if mode, ok := inDSN["sslmode"]; ok && mode == "" {
		return nil, &ConfigError{Setting: "sslmode", Problem: "sslmode is empty: leave the key out for verify-full"}
	}
	if said["sslmode"] == "" {
		said["sslmode"] = "verify-full"
		safe := []setting{{"sslmode", "verify-full"}}
		if said["sslrootcert"] == "" { // the system's roots, not ~/.postgresql/root.crt
			safe = append(safe, setting{"sslrootcert", ""})
		}
		dsn = prepend(safe, dsn, query)
	}

	config, err := parse(dsn)
	var refused *ConfigError
	switch {
	case errors.As(err, &refused):
		return nil, err
	case err != nil:
		return nil, parseError(err)
	}
	config.User = said["user"]
	if said["connect_timeout"] == "" {
		config.ConnectTimeout = connectTimeout
	}
	delete(said, "password")
	delete(said, "sslpassword")

	t := &target{config: config, sslmode: said["sslmode"], said: said, entra: map[string]string{}}
	if err := t.takeKeys(); err != nil {
		return nil, err
	}
	if t.credential != noneKind {
		if inDSN["password"] != "" {
			return nil, passwordError("password")
		}
		config.Password = "" // of PGPASSWORD, a service file or a passfile: not ours
	}
	return t, nil
}

// takeKeys takes entrapg's own keys out of what pgx, which does not know them,
// would send to the server. Others that the server should not see are errors.
func (t *target) takeKeys() error {
	for _, key := range slices.Sorted(maps.Keys(t.config.RuntimeParams)) {
		switch name := strings.ToLower(key); {
		case slices.Contains([]string{"password", "passwd", "pass", "pwd", "pgpassword"}, name):
			return passwordError(key)
		case name == "server" || strings.ContainsAny(key, ":/?;@"):
			return errForeign
		case slices.Contains(ownKeys, key):
			t.entra[key] = t.config.RuntimeParams[key]
			delete(t.config.RuntimeParams, key)
		case strings.HasPrefix(name, "entra_"):
			return &ConfigError{Setting: key, Problem: "unknown key: entrapg knows " + strings.Join(ownKeys, ", ") + ", in lower case"}
		}
	}
	name, ok := t.entra[keyCredential]
	if !ok {
		return nil
	}
	var err error
	t.credential, err = credentialKindOf(name)
	return err
}

func passwordError(key string) error {
	return &ConfigError{Setting: key, Problem: "the DSN has a password: remove it, entrapg logs in with Microsoft Entra tokens and wants no secret in a DSN"}
}

var errForeign = &ConfigError{Setting: "dsn", Problem: "the DSN is of another kind, of JDBC, ADO.NET or ODBC perhaps: a DSN of pgx is a postgres:// URL or a list of key=value settings"}

var quotation = regexp.MustCompile(`(?s)".*"`)

// parseError tells what pgx found wrong, without the DSN and without what pgx
// quotes from it: where a DSN is malformed, any part of it can be a stray piece
// of a password.
func parseError(err error) error {
	text, detail := err.Error(), ""
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		// pgx writes: cannot parse `DSN`: what is wrong (detail).
		if cause := parse.Unwrap(); cause != nil {
			detail = " (" + cause.Error() + ")"
		}
		text = strings.TrimSuffix(text, detail)
		if i := strings.LastIndex(text, "`: "); i >= 0 {
			text = text[i+len("`: "):]
		}
		text += detail
	}
	// Pgx's own words, which come not from the DSN.
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
	return &ConfigError{Setting: keyIn(text), Problem: "the DSN does not parse: " + text, Err: cause}
}

// keyIn returns the key of a DSN that pgx mentions first, "dsn" where it
// mentions none.
func keyIn(text string) string {
	key := "dsn"
	first := len(text)
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
