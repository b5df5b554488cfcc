package quote

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DSNSetting returns a setting for a DSN, a URL or key=value settings. A placeholder
// replaces a value that a shell and key=value settings quote differently.
func DSNSetting(isURL bool, key, value string) string {
	switch {
	case isURL:
		return key + "=" + inQuery.Replace(url.QueryEscape(value))
	case plain.MatchString(value):
		return key + "=" + value
	case strings.Contains(value, "'") || strings.ContainsFunc(value, unprintable) || !utf8.ValidString(value):
		return key + "=" + placeholder(key)
	default:
		return key + "='" + strings.ReplaceAll(value, `\`, `\\`) + "'"
	}
}

// inQuery undoes what a query does not need. pgx takes a plus sign as it is, and
// the first @ or / as the end of the user or of the host.
var inQuery = strings.NewReplacer("+", "%20", "%2F", "/", "%3A", ":", "%2C", ",")

// ServiceSetting returns a setting for a service file, in which values are not quoted.
func ServiceSetting(key, value string) string {
	if !plain.MatchString(strings.ReplaceAll(value, "#", "")) {
		value = placeholder(key)
	}
	return key + "=" + value
}

func placeholder(key string) string {
	if key == "user" {
		return "ROLE"
	}
	return strings.ToUpper(key)
}

// Conninfo quotes a value for a connection string of libpq.
func Conninfo(value string) string {
	if value != "" &&
		!strings.ContainsFunc(value, func(r rune) bool { return r == '\\' || r == '\'' || unicode.IsSpace(r) }) {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
