// Package quote quotes text for a shell, SQL, a DSN and files, so that the result can be
// shown and pasted as a single line.
package quote

import (
	"regexp"
	"unicode"
)

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// IsPlain reports whether a string needs no quotes, neither in a shell nor in a DSN.
func IsPlain(s string) bool { return plain.MatchString(s) }

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)
