package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A terminal writes text for people. It wraps lines, and uses color if the output is
// a terminal with colors and NO_COLOR (https://no-color.org) is not set.
type terminal struct {
	io.Writer
	color bool
	live  bool // lines can be overwritten
	width int

	failure atomic.Pointer[error] // of the first write that failed
}

// Write records the first failure for the exit code.
func (t *terminal) Write(b []byte) (int, error) {
	n, err := t.Writer.Write(b)
	if err != nil {
		t.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

func newTerminal(f *os.File) *terminal {
	columns, isTerminal := window(f)
	able := isTerminal && os.Getenv("TERM") != "dumb"
	return &terminal{Writer: f, color: able && os.Getenv("NO_COLOR") == "", live: able, width: width(columns)}
}

// width returns the number of columns to use, 80 if it is unknown. Very wide lines
// are hard to read, and very narrow ones leave no room for a label and a text.
func width(columns int) int {
	const least, usual, most = 40, 80, 120
	if columns == 0 {
		var err error
		if columns, err = strconv.Atoi(os.Getenv("COLUMNS")); err != nil {
			columns = usual
		}
	}
	return min(max(columns, least), most)
}

func (t *terminal) printf(format string, args ...any) {
	io.WriteString(t, string(sprintf(format, args...)))
}

func (t *terminal) json(v any) error {
	e := json.NewEncoder(escaper{t})
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (t *terminal) good(s string) styled { return t.in("32", s) }
func (t *terminal) bad(s string) styled  { return t.in("31", s) }
func (t *terminal) warn(s string) styled { return t.in("33", s) }
func (t *terminal) dim(s string) styled  { return t.in("2", s) }
func (t *terminal) bold(s string) styled { return t.in("1", s) }

func (t *terminal) in(code, s string) styled {
	if !t.color {
		return escape(s)
	}
	return styled("\x1b["+code+"m") + escape(s) + "\x1b[0m"
}

// labelWidth is the number of columns of labels.
const labelWidth = 12

// field writes a label and a text beside it.
func (t *terminal) field(label string, text styled) { t.hang(sprintf("%-*s", labelWidth, label), text) }

// hang writes a head and a text beside it, wrapped between words. A word that is
// longer than a line is not split, so that it can be copied.
func (t *terminal) hang(head, text styled) {
	indent := strings.Repeat(" ", visible(string(head)))
	for i, line := range wrap(string(text), t.width-len(indent)) {
		if i > 0 {
			head = styled(indent)
		}
		t.printf("%s\n", styled(strings.TrimRight(string(head)+line, " ")))
	}
}

// wrap splits a text into lines of at most the given number of columns.
func wrap(text string, columns int) []string {
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case visible(line)+1+visible(word) > columns:
				lines = append(lines, line)
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// visible returns the number of columns of a text. Colors do not count.
func visible(s string) int {
	n := utf8.RuneCountInString(s)
	for {
		_, rest, ok := strings.Cut(s, "\x1b[")
		if !ok {
			return n
		}
		code, rest, _ := strings.Cut(rest, "m")
		n -= len("\x1b[") + len(code) + len("m")
		s = rest
	}
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// round formats a duration with two units at most: 12s, 59m 03s, 4h 10m.
func round(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}
