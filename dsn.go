package entrapg

import (
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/jackc/pgservicefile"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// target is where and how to log in: what a DSN comes to once pgx has parsed it.
type target struct {
	config  *pgx.ConnConfig // User is empty where it is to be derived; Password always is
	sslmode string
	scope   string // empty where the DSN has no entra_scope
}

// The functions below read a DSN, PG* variables and service files as pgx does in
// pgconn/config.go, parse_url.go and defaults*.go (v5.12), to learn what a parsed
// configuration does not tell. pgx stays the judge: FuzzDSN holds the two
// together.

// parseDSN has parse, which is pgx's or pgxpool's, make the configuration, and
// adds what pgx cannot tell: whether the user and sslmode were chosen or are
// pgx's own defaults, which entrapg replaces by safer ones.
func parseDSN(dsn string, parse func(string) (*pgx.ConnConfig, error)) (*target, error) {
	own, query := scan(dsn)
	if own["password"] != "" {
		return nil, &ConfigError{Setting: "password", Problem: "the DSN has a password: remove it, entrapg logs in with Microsoft Entra tokens and wants no secret in a DSN"}
	}
	env := environment()
	said := merge(env, service(merge(env, own)), own)
	if mode, ok := own["sslmode"]; ok && mode == "" {
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
	config.Password = "" // of PGPASSWORD, a service file or a passfile: not ours

	t := &target{config: config, sslmode: said["sslmode"]}
	for _, key := range slices.Sorted(maps.Keys(config.RuntimeParams)) {
		switch strings.ToLower(key) {
		case "password", "passwd", "pass", "pwd", "pgpassword": // the server would get it as a parameter
			return nil, &ConfigError{Setting: key, Problem: "the DSN has a password: remove it, entrapg logs in with Microsoft Entra tokens and wants no secret in a DSN"}
		case "server":
			return nil, errForeign
		}
		if strings.ContainsAny(key, ":/?;@") {
			return nil, errForeign
		}
		if !strings.HasPrefix(strings.ToLower(key), "entra_") {
			continue
		}
		value := config.RuntimeParams[key]
		delete(config.RuntimeParams, key)
		switch {
		case key != "entra_scope":
			return nil, &ConfigError{Setting: key, Problem: "unknown key in the DSN: entrapg knows entra_scope"}
		case value == "":
			return nil, &ConfigError{Setting: key, Problem: "the scope is empty: leave the key out for the scope of the host's cloud"}
		}
		t.scope = value
	}
	return t, nil
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
	setting := "dsn"
	for _, key := range []string{
		"port", "sslmode", "sslrootcert", "sslcertmode", "sslcert", "sslkey", "connect_timeout", "target_session_attrs", "channel_binding", "require_auth",
		"min_protocol_version", "max_protocol_version", "service", "statement_cache_capacity", "description_cache_capacity", "default_query_exec_mode",
		"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout",
	} {
		if strings.Contains(text, key) {
			setting = key
		}
	}
	return &ConfigError{Setting: setting, Problem: "the DSN does not parse: " + text, Err: cause}
}

// environment returns those settings of PG* variables that matter here.
func environment() map[string]string {
	said := map[string]string{}
	for key, name := range map[string]string{"user": "PGUSER", "sslmode": "PGSSLMODE", "service": "PGSERVICE", "servicefile": "PGSERVICEFILE", "sslrootcert": "PGSSLROOTCERT"} {
		if v := os.Getenv(name); v != "" {
			said[key] = v
		}
	}
	return said
}

// service returns the settings of the service that said names, from the file
// where pgx looks for it. What is wrong with that file is left to pgx to say.
func service(said map[string]string) map[string]string {
	name, ok := said["service"]
	if !ok {
		return nil
	}
	path, ok := said["servicefile"]
	if !ok {
		path = defaultServiceFile()
	}
	file, err := pgservicefile.ReadServicefile(path)
	if err != nil {
		return nil
	}
	found, err := file.GetService(name)
	if err != nil {
		return nil
	}
	return found.Settings
}

func defaultServiceFile() string {
	if appData := os.Getenv("APPDATA"); runtime.GOOS == "windows" && appData != "" {
		path := filepath.Join(appData, "postgresql", ".pg_service.conf")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".pg_service.conf")
}

func merge(sets ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// scan reads the settings of a DSN as pgx does, and where the query of a URL
// begins, -1 for none. It does not judge: what is malformed is passed over
// somehow, and pgx, which is asked next, refuses it.
func scan(dsn string) (said map[string]string, query int) {
	if isURL(dsn) {
		return scanURL(dsn)
	}
	return scanKeywords(dsn), -1
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

type setting struct{ key, value string }

// prepend adds settings in front, where every other occurrence overrides them.
func prepend(settings []setting, dsn string, query int) string {
	var keywords, parameters strings.Builder
	for _, s := range settings {
		keywords.WriteString(s.key + "='" + s.value + "' ")
		parameters.WriteString(s.key + "=" + s.value + "&")
	}
	switch {
	case !isURL(dsn):
		return keywords.String() + dsn
	case query < 0:
		return dsn + "?" + parameters.String()
	default:
		return dsn[:query+1] + parameters.String() + dsn[query+1:]
	}
}

const space = " \t\n\r\v\f"

func scanKeywords(s string) map[string]string {
	said := map[string]string{}
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return said
		}
		key, rest = strings.Trim(key, space), strings.TrimLeft(rest, space)
		unquoted, quoted := strings.CutPrefix(rest, "'")
		rest = unquoted

		var value strings.Builder
		i := 0
		for ; i < len(rest); i++ {
			if quoted && rest[i] == '\'' || !quoted && strings.IndexByte(space, rest[i]) >= 0 {
				break
			}
			if rest[i] == '\\' {
				if i++; i == len(rest) {
					break
				}
			}
			value.WriteByte(rest[i])
		}
		if quoted {
			i++
		}
		s = rest[min(i, len(rest)):]

		if key != "user" || value.Len() > 0 { // pgx passes over an empty user, in this form only
			said[key] = value.String()
		}
	}
}

func scanURL(dsn string) (said map[string]string, query int) {
	said = map[string]string{}
	_, rest, _ := strings.Cut(dsn, "://")
	// Only a slash ends the search for the credentials, not a question mark.
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		said["user"], said["password"] = unescape(user), unescape(password)
		rest = rest[i+1:]
	}
	// An empty one leaves PGUSER and the service file in force.
	maps.DeleteFunc(said, func(_, v string) bool { return v == "" })

	i := queryStart(rest)
	if i < 0 {
		return said, -1
	}
	sslLast := false // JDBC's ssl=true means sslmode=require, unless an sslmode follows
	for pair := range strings.SplitSeq(rest[i+1:], "&") {
		key, value, _ := strings.Cut(pair, "=")
		key = unescape(key)
		said[key] = unescape(value)
		switch key {
		case "ssl":
			sslLast = true
		case "sslmode":
			sslLast = false
		}
	}
	if said["ssl"] == "true" && sslLast {
		said["sslmode"] = "require"
	}
	return said, len(dsn) - len(rest) + i
}

// queryStart finds the question mark that begins the query in what follows a
// URL's credentials. One between the brackets of an IPv6 host does not.
func queryStart(s string) int {
	for i := 0; ; i++ {
		if strings.HasPrefix(s[i:], "[") {
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return -1
			}
			i += end
		}
		n := strings.IndexAny(s[i:], ",/?")
		if n < 0 {
			return -1
		}
		i += n
		switch s[i] {
		case '?':
			return i
		case '/':
			n := strings.IndexByte(s[i:], '?')
			if n < 0 {
				return -1
			}
			return i + n
		}
	}
}

func unescape(s string) string {
	s = strings.Trim(s, " ")
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}
