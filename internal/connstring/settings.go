package connstring

import (
	"maps"
	"net/url"
	"strings"
)

// Settings are settings by libpq's key, such as "dbname" or "sslmode". They
// include secrets: password and sslpassword. An empty value that is set
// overrides a setting of lower precedence, so it is present here too.
type Settings map[string]Setting

// Parse returns the settings in effect: those of the DSN, then those of the
// service file that it or the environment names, then those of the environment.
// Defaults are not included. The settings of a service file that cannot be read
// are missing, and those of a malformed DSN can be incomplete.
func Parse(dsn string) Settings {
	env, own := environment(), InDSN(dsn)
	return merge(env, service(merge(env, own)), own)
}

// InDSN returns the settings in the DSN itself.
func InDSN(dsn string) Settings {
	if isURL(dsn) {
		s, _ := scanURL(dsn)
		return s
	}
	return scanKeywords(dsn)
}

// WithDefault returns the DSN with a setting in front of the others, so that
// every other occurrence of key in the DSN overrides it. The setting itself
// overrides the service file and the environment.
func WithDefault(dsn, key, value string) string {
	if !isURL(dsn) {
		return key + "='" + keywordEscaper.Replace(value) + "' " + dsn
	}
	parameter := escapeURL(key) + "=" + escapeURL(value)
	_, query := scanURL(dsn)
	if query < 0 {
		return dsn + "?" + parameter
	}
	return dsn[:query+1] + parameter + "&" + dsn[query+1:]
}

// WithOverride returns the DSN with a setting after the others, so that it
// overrides every other occurrence of key in the DSN, the service file and the
// environment.
func WithOverride(dsn, key, value string) string {
	if !isURL(dsn) {
		return dsn + " " + key + "='" + keywordEscaper.Replace(value) + "'"
	}
	separator := "&"
	switch _, query := scanURL(dsn); {
	case query < 0:
		separator = "?"
	case strings.HasSuffix(dsn, "?") || strings.HasSuffix(dsn, "&"):
		separator = ""
	}
	return dsn + separator + escapeURL(key) + "=" + escapeURL(value)
}

// IsURL reports whether a DSN is a URL, and not a list of key=value settings.
func IsURL(dsn string) bool { return isURL(Clean(dsn)) }

// Clean removes a byte order mark from a DSN, and the white space around a URL,
// such as the newline at the end of a file. In key=value settings, pgx ignores
// white space at the start and the end.
func Clean(dsn string) string {
	dsn = strings.TrimPrefix(dsn, "\ufeff")
	if trimmed := strings.TrimSpace(dsn); isURL(trimmed) {
		return trimmed
	}
	return dsn
}

// Value returns the value of key, or "" if it is not set.
func (s Settings) Value(key string) string { return s[key].Value }

// OriginOutsideDSN returns the origin of a setting, or "" if it is not set or is in the DSN.
func (s Settings) OriginOutsideDSN(key string) string {
	if origin := s[key].Origin; origin != OriginDSN {
		return origin
	}
	return ""
}

// merge returns the settings of all sets, in which later sets override earlier ones.
func merge(sets ...Settings) Settings {
	all := Settings{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// canonicalKey returns libpq's name of a key that pgx accepts.
func canonicalKey(key string) string {
	if key == "database" {
		return "dbname"
	}
	return key
}

var keywordEscaper = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// escapeURL escapes spaces as %20: pgx does not decode a plus sign.
func escapeURL(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
