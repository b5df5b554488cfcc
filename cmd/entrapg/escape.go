package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// styled is text for a terminal: escaped, and possibly with this program's own
// colors. Only escape converts other text to it.
type styled string

// escape replaces characters that do not print, so that certificates, servers,
// names and variables cannot control a terminal or reorder a line: control
// characters, escape sequences, marks for the direction of text, and bytes that
// are not UTF-8. Newlines and tabs remain. The escape sequences are those of JSON,
// so that JSON remains valid.
func escape(s string) styled {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, harmful) {
		return styled(s)
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !harmful(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return styled(b.String())
}

func harmful(r rune) bool { return unprintable(r) && r != '\n' && r != '\t' }

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// sprintf is like fmt.Sprintf, but escapes strings, errors and Stringers.
func sprintf(format string, args ...any) styled {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			safe[i] = escape(arg)
		case error:
			safe[i] = escape(arg.Error())
		case fmt.Stringer:
			safe[i] = escape(arg.String())
		default:
			safe[i] = arg
		}
	}
	return styled(fmt.Sprintf(format, safe...))
}

// An escaper escapes everything that is written to it.
type escaper struct{ io.Writer }

func (e escaper) Write(b []byte) (int, error) {
	if _, err := io.WriteString(e.Writer, string(escape(string(b)))); err != nil {
		return 0, err
	}
	return len(b), nil
}
