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
	origin := settings.OriginOutsideDSN(invalid.Setting)
	if origin == "" {
		return err
	}
	located := *invalid
	located.Origin = origin
	return &located
}

func passwordError(key string) error {
	return &ConfigError{
		Setting: key,
		Problem: "the DSN must not contain a password, because entrapg logs in with Microsoft Entra tokens; remove it, " +
			"or add entra_credential=none to log in to a local server with a password",
	}
}

// serviceError returns the error for a service whose settings cannot be read.
func serviceError(settings connstring.Settings) *ConfigError {
	file, name := connstring.ServiceFile(settings), settings.Value("service")
	variable, fix := "PGSERVICEFILE", "set PGSERVICEFILE"
	if settings["servicefile"].Origin == connstring.OriginDSN {
		variable, fix = "", "correct servicefile"
	}
	err := connstring.CheckServiceFile(file)
	e := &ConfigError{Setting: "service", Problem: "service file " + file, Err: err}
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Problem += " does not exist; create it, or " + fix
		e.fix.Variable = variable
	case errors.As(err, &path):
		e.Problem += " cannot be read: " + path.Err.Error() + "; check its permissions, or " + fix
		e.fix.Variable = variable
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
	case validValues[e.Setting] != "":
		e.Problem = "invalid value"
		if plainWord.MatchString(value) && e.Setting != "port" { // a URL without a host has a password there
			e.Problem = fmt.Sprintf("invalid value %q", value)
		}
		e.Problem += "; use " + validValues[e.Setting]
	case errors.As(err, &path):
		e.Err = path
	case slices.Contains([]string{"sslrootcert", "sslcert", "sslkey"}, e.Setting) && value != "":
		e.Problem += "; the file is " + value
	case e.Setting == "dsn" && strings.Contains(text, "as keyword/value"):
		e.Problem = "cannot be parsed: " + text + "; a DSN is a postgres:// URL or a list of key=value settings"
	case e.Setting == "dsn":
		e.Problem = "cannot be parsed: " + text
	case plainWord.MatchString(value):
		e.Problem = strings.Replace(text, `"…"`, strconv.Quote(value), 1)
	}
	return e
}

// validValues describes the values of settings that pgx parses.
var validValues = map[string]string{
	"port":                          "a number from 1 to 65535",
	"connect_timeout":               "a number of seconds",
	"target_session_attrs":          "any, read-write, read-only, primary, standby or prefer-standby",
	"channel_binding":               "disable or prefer",
	"min_protocol_version":          "3.0, 3.2 or latest",
	"max_protocol_version":          "3.0, 3.2 or latest",
	"statement_cache_capacity":      "a number",
	"description_cache_capacity":    "a number",
	"default_query_exec_mode":       "cache_statement, cache_describe, describe_exec, exec or simple_protocol",
	"pool_max_conns":                "a number greater than 0",
	"pool_min_conns":                "a number",
	"pool_min_idle_conns":           "a number",
	"pool_max_conn_lifetime":        "a duration such as 30m",
	"pool_max_conn_lifetime_jitter": "a duration such as 30s",
	"pool_max_conn_idle_time":       "a duration such as 5m",
	"pool_health_check_period":      "a duration such as 1m",
	"pool_ping_timeout":             "a duration such as 5s",
}

// pgxWords removes the quotation marks around words that do not come from the
// DSN, and names the setting where pgx does not.
var pgxWords = strings.NewReplacer(`"="`, "=", `"sslcert"`, "sslcert", `"sslkey"`, "sslkey",
	"CA file", "CA file of sslrootcert", "add CA to", "add CA of sslrootcert to",
	"read cert", "read sslcert", "load cert", "load sslcert", "decrypt key", "decrypt sslkey")

// keyIn returns the DSN's key that pgx's message mentions first, or "dsn".
func keyIn(text string) string {
	key, first := "dsn", len(text)
	for _, k := range append([]string{
		"port", "sslmode", "sslrootcert", "sslcertmode", "sslcert", "sslkey", "connect_timeout", "target_session_attrs",
		"channel_binding", "require_auth", "min_protocol_version", "max_protocol_version", "service",
		"statement_cache_capacity", "description_cache_capacity", "default_query_exec_mode",
	}, poolKeys...) {
		if i := strings.Index(text, k); i >= 0 && i < first {
			key, first = k, i
		}
	}
	return key
}
