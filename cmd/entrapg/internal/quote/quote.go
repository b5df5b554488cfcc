// Package quote quotes text for a shell, SQL, a DSN and files, so that the result can be
// shown and pasted as a single line.
package quote

import (
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Literal quotes a string for SQL.
func Literal(s string) string {
	text, prefix := sqlEscape(s)
	return prefix + "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

// Identifier quotes a name for SQL.
func Identifier(s string) string {
	text, prefix := sqlEscape(s)
	return prefix + pgx.Identifier{text}.Sanitize()
}

// sqlEscape returns the text between the quotes, and the prefix before them.
func sqlEscape(s string) (text, prefix string) {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), string(utf8.RuneError))
	if !strings.ContainsFunc(s, unprintable) {
		return s, ""
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case unprintable(r):
			fmt.Fprintf(&b, `\+%06X`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), "U&"
}

// IsPlain reports whether a string needs no quotes, neither in a shell nor in a DSN.
func IsPlain(s string) bool { return plain.MatchString(s) }

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// Shell quotes a string for a shell of POSIX.
func Shell(s string) string {
	switch {
	case plain.MatchString(s):
		return s
	case utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable):
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder // POSIX.1-2024, bash, zsh and ksh
	b.WriteString("$'")
	for i := range len(s) {
		if plain.MatchString(s[i : i+1]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, `\%03o`, s[i])
		}
	}
	b.WriteString("'")
	return b.String()
}

// DSNSetting is a setting for a DSN, a URL or key=value settings. A placeholder
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

// ServiceSetting is a setting for a service file, in which values are not quoted.
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

// Export returns the command that sets an environment variable, in the shell that is
// usual on this system.
func Export(name, value string) string {
	if runtime.GOOS == "windows" {
		return "$env:" + name + " = " + PowerShell(Comment(value))
	}
	return "export " + name + "=" + Shell(value)
}

// Unset returns the command that removes an environment variable.
func Unset(name string) string {
	if runtime.GOOS == "windows" {
		return "Remove-Item Env:" + name
	}
	return "unset " + name
}

// Comment keeps a comment of a shell or of SQL, or a text for PowerShell, in one line.
func Comment(s string) string {
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// Inert replaces what is more than text to a shell. By default, an interactive zsh, the
// shell of macOS, runs a comment that is pasted as a command.
func Inert(s string) string { return lookalikes.Replace(s) }

var lookalikes = strings.NewReplacer(
	"'", "\u2019", `"`, "\u201d", "`", "\u2018", "$", "\uff04", ";", "\uff1b", "&", "\uff06", "|", "\uff5c",
	"<", "\uff1c", ">", "\uff1e", "(", "\uff08", ")", "\uff09", "!", "\uff01", "{", "\uff5b", `\`, "\uff3c",
)

// PowerShell quotes a value for PowerShell. It takes the typographic quotation
// marks for the straight one.
func PowerShell(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// Conninfo quotes a value for a connection string of libpq.
func Conninfo(value string) string {
	if value != "" && !strings.ContainsFunc(value, func(r rune) bool { return r == '\\' || r == '\'' || unicode.IsSpace(r) }) {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// DotEnv quotes a value for a .env file. Nothing within single quotes has a
// meaning; a value that contains them is in double quotes.
func DotEnv(value string) string {
	if !strings.Contains(value, "'") {
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}
