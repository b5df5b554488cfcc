// Package terminaltest helps to test that foreign text does not control a terminal.
package terminaltest

import (
	"testing"
	"unicode"
)

// Control is text that clears a terminal, sets its title, colors and reorders text.
const Control = "\x1b[2J\x1b]0;owned\a\r\u009b31m\u202eevil\u2066\u200b\x7f"

// RequireHarmless fails if raw output contains a character that controls a terminal.
func RequireHarmless(t testing.TB, output string) {
	t.Helper()
	for _, r := range output {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U in %q", r, output)
			return
		}
	}
}
