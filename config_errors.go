package entrapg

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/connstring"
)

// withOrigin adds the origin of the setting to a ConfigError, unless that is the
// DSN. It returns other errors unchanged.
func withOrigin(err error, settings connstring.Settings) error {
	invalid, ok := errors.AsType[*ConfigError](err)
	if !ok {
		return err
	}
	origin := foreignOrigin(settings, invalid.Setting)
	if origin == "" {
		return err
	}
	located := *invalid
	located.Origin = origin
	return &located
}

// foreignOrigin returns where a setting comes from, or "" if it is not set or
// comes from the DSN.
func foreignOrigin(settings connstring.Settings, key string) string {
	if origin := settings[key].Origin; origin != connstring.OriginDSN {
		return origin
	}
	return ""
}

func passwordError(key string) error {
	return &ConfigError{
		Setting: key,
		Problem: "the DSN must not contain a password; remove it, entrapg logs in with Microsoft Entra tokens",
	}
}

// serviceError returns the error for a service whose settings cannot be read.
func serviceError(settings connstring.Settings) *ConfigError {
	file, name := connstring.ServiceFile(settings), settings.Value("service")
	err := connstring.CheckServiceFile(file)
	e := &ConfigError{Setting: "service", Problem: "service file " + file, Err: err}
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Problem += " does not exist; create it, or set PGSERVICEFILE"
		e.fix.Variable = "PGSERVICEFILE"
	case errors.As(err, &path):
		e.Problem += " cannot be read: " + path.Err.Error() + "; check its permissions, or set PGSERVICEFILE"
		e.fix.Variable = "PGSERVICEFILE"
	case err != nil:
		e.Problem += " is malformed; write [NAME] before the settings of a service, and KEY=VALUE for each setting"
		e.Err = nil // the parser's error can contain a line of the file
	case plainWord.MatchString(name):
		e.Problem += fmt.Sprintf(" has no service %q; add [%s] and its settings, or correct the name", name, name)
	default:
		e.Problem += " has no service of this name; add it, or correct the name"
	}
	return e
}

var quotation = regexp.MustCompile(`(?s)".*"`)

// parseError returns a ConfigError with pgx's reason, without the DSN and
// without the parts that pgx quotes, because any part of a malformed DSN can be a
// piece of a password. It quotes the value of the setting if that is a plain word.
func parseError(err error, settings connstring.Settings) error {
	text, detail := err.Error(), ""
	if parse, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
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
	case e.Setting == "service":
		return serviceError(settings)
	case errors.As(err, &path):
		e.Err = path
	case slices.Contains([]string{"sslrootcert", "sslcert", "sslkey"}, e.Setting) && value != "":
		e.Problem += "; the file is " + value
	case e.Setting == "dsn" && strings.Contains(text, "as keyword/value"):
		e.Problem = "cannot be parsed: " + text + "; a DSN is a postgres:// URL or a list of key=value settings"
	case e.Setting == "dsn":
		e.Problem = "cannot be parsed: " + text
	case plainWord.MatchString(value) && e.Setting != "port": // a URL without a host has a password there
		e.Problem = strings.Replace(text, `"…"`, strconv.Quote(value), 1)
	}
	return e
}

// pgxWords removes the quotation marks around words that do not come from the
// DSN, and names the setting where pgx does not.
var pgxWords = strings.NewReplacer(`"="`, "=", `"sslcert"`, "sslcert", `"sslkey"`, "sslkey",
	"CA file", "CA file of sslrootcert", "add CA to", "add CA of sslrootcert to",
	"read cert", "read sslcert", "load cert", "load sslcert", "decrypt key", "decrypt sslkey")

// keyIn returns the DSN's key that pgx's message mentions first, or "dsn".
func keyIn(text string) string {
	key, first := "dsn", len(text)
	for _, k := range []string{
		"port", "sslmode", "sslrootcert", "sslcertmode", "sslcert", "sslkey", "connect_timeout", "target_session_attrs",
		"channel_binding", "require_auth", "min_protocol_version", "max_protocol_version", "service",
		"statement_cache_capacity", "description_cache_capacity", "default_query_exec_mode",
		"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time",
		"pool_health_check_period", "pool_ping_timeout",
	} {
		if i := strings.Index(text, k); i >= 0 && i < first {
			key, first = k, i
		}
	}
	return key
}
