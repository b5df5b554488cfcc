package entrapg

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/entrapg/entrapg/internal/connstring"
)

var (
	errForeignDSN = &ConfigError{
		Setting: "dsn",
		Problem: "looks like a connection string of JDBC, ADO.NET, ODBC or another library; " +
			"use a postgres:// URL or key=value settings",
	}
	errUnknownScheme = &ConfigError{
		Setting: "dsn",
		Problem: "has an unknown scheme; a URL begins with postgres:// or postgresql://",
	}
	errQuotedDSN = &ConfigError{Setting: "dsn", Problem: "is in quotation marks; remove them"}
	errUserAt    = &ConfigError{
		Setting: "dsn",
		Problem: "has more than one @ before the path; in a URL, write the @ of a user or password as %40, " +
			"for example alice%40contoso.com",
	}
	errUserSlash = &ConfigError{
		Setting: "dsn",
		Problem: "has an @ in the path; in a URL, write the / of a user or password as %2F, " +
			"and the @ of a database as %40",
	}
)

// foreignPair matches a setting after a semicolon, as in Host=h;Password=p.
var foreignPair = regexp.MustCompile(`(?i);\s*(host|server|data source|port|user ?(name|id)?|uid|` +
	`database|initial catalog|password|pwd|ssl ?mode|trust server certificate|timeout)\s*=`)

// foreignURL matches other schemes than those of pgx, such as jdbc:postgresql and
// postgresql+psycopg.
var foreignURL = regexp.MustCompile(`^\s*[A-Za-z][A-Za-z0-9+.:-]*://`)

// unknownScheme matches a scheme of one word, such as postgre and Postgres.
var unknownScheme = regexp.MustCompile(`^\s*[A-Za-z]+://`)

// checkSyntax returns an error for a DSN that pgx would misread, for example by
// taking a password for a part of the host or the database. The errors do not
// quote the DSN.
func checkSyntax(dsn string) error {
	trimmed := strings.TrimSpace(dsn)
	if len(trimmed) > 1 && strings.IndexByte("\"'`", trimmed[0]) >= 0 && trimmed[0] == trimmed[len(trimmed)-1] {
		return errQuotedDSN
	}
	if scheme, rest, ok := strings.Cut(dsn, "://"); ok && (scheme == "postgres" || scheme == "postgresql") {
		rest, _, _ = strings.Cut(rest, "?")
		authority, path, _ := strings.Cut(rest, "/")
		switch at := strings.Count(authority, "@"); {
		case at > 1:
			return errUserAt
		case at == 0 && authority != "" && strings.Contains(path, "@"):
			return errUserSlash
		}
		return checkQuery(dsn)
	}
	if unknownScheme.MatchString(dsn) {
		return errUnknownScheme
	}
	if foreignURL.MatchString(dsn) || !strings.Contains(dsn, "'") && foreignPair.MatchString(dsn) {
		return errForeignDSN
	}
	for key, setting := range connstring.InDSN(dsn) {
		// pgx reads Host=h;Password=p as one setting.
		if slices.Contains(connectionKeys, strings.ToLower(key)) && foreignPair.MatchString(setting.Value) {
			return errForeignDSN
		}
	}
	return nil
}

// checkQuery returns an error for a parameter of a URL that pgx cannot split or decode. The
// error names the parameter if its key is known: any other can be a piece of a password.
func checkQuery(dsn string) error {
	_, query, found := connstring.CutQuery(dsn)
	if !found {
		return nil
	}
	for parameter := range strings.SplitSeq(strings.TrimSuffix(query, "&"), "&") {
		key, value, separated := strings.Cut(parameter, "=")
		invalid := &ConfigError{Setting: "dsn", Problem: "a parameter of the URL "}
		if slices.Contains(urlKeys, key) {
			invalid = &ConfigError{Setting: key}
		}
		_, malformed := url.PathUnescape(parameter)
		switch {
		case parameter == "": // pgx reports it, or accepts it at the end
			continue
		case !separated:
			invalid.Problem += "has no value; write KEY=VALUE, and the & of a value as %26"
		case strings.Contains(value, "="):
			invalid.Problem += "has an unescaped = in its value; write it as %3D"
			invalid.fix.Escape = true
		case malformed != nil:
			invalid.Problem += "has a % that begins no escape sequence; write the % of a value as %25"
			invalid.fix.Escape = true
		default:
			continue
		}
		return invalid
	}
	return nil
}

// urlKeys are keys that errors about the syntax of a URL may name.
var urlKeys = slices.Concat(connectionKeys, []string{
	"application_name", "options", "password", "search_path", "sslpassword", "target_session_attrs",
	keyCredential, keyClientID, keyTenantID, keyScope,
})
