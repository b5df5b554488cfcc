package terminal

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is text for a terminal: escaped, and possibly with this program's own
// colors. Only Escape and Sprintf convert other text to it.
type Text string

// Escape replaces characters that do not print, so that certificates, servers,
// names and variables cannot control a terminal or reorder a line: control
// characters, escape sequences, marks for the direction of text, and bytes that
// are not UTF-8. Newlines and tabs remain. The escape sequences are those of JSON,
// so that JSON remains valid.
func Escape(s string) Text {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, harmful) {
		return Text(s)
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
	return Text(b.String())
}

func harmful(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }

// Sprintf is like fmt.Sprintf, but escapes strings, errors and Stringers.
func Sprintf(format string, args ...any) Text {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			safe[i] = Escape(arg)
		case error:
			safe[i] = Escape(arg.Error())
		case fmt.Stringer:
			safe[i] = Escape(arg.String())
		default:
			safe[i] = arg
		}
	}
	return Text(fmt.Sprintf(format, safe...))
}

// An Escaper escapes everything that is written to it.
type Escaper struct{ io.Writer }

func (e Escaper) Write(b []byte) (int, error) {
	if _, err := io.WriteString(e.Writer, string(Escape(string(b)))); err != nil {
		return 0, err
	}
	return len(b), nil
}
