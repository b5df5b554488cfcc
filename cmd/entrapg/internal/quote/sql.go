package quote

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

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
