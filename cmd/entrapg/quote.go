package main

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// literal and identifier quote names for SQL, shell for a command. Characters that
// do not print are written as escapes, so that the result can be shown and pasted
// as a line.

func literal(s string) string {
	text, prefix := sqlEscape(s)
	return prefix + "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

func identifier(s string) string {
	text, prefix := sqlEscape(s)
	return prefix + pgx.Identifier{text}.Sanitize()
}

// sqlEscape returns a text to stand between quotes after the prefix.
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

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

func shell(s string) string {
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

// setting is one for a DSN, or the placeholder instead of a value that a shell and
// a DSN quote differently.
func setting(key, value, placeholder string) string {
	if strings.ContainsAny(value, `'\`) || strings.ContainsFunc(value, unprintable) || !utf8.ValidString(value) {
		value = placeholder
	}
	return key + "=" + shell(value)
}
