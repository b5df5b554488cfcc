package main

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// literal and identifier write names into SQL, and shell into a command.
func literal(s string) string    { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func identifier(s string) string { return pgx.Identifier{s}.Sanitize() }

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

func shell(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
