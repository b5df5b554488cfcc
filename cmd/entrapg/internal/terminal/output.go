// Package terminal writes text for people: escaped, wrapped, and in color.
package terminal

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

// An Output writes text for people. It wraps lines, and uses color if the output is
// a terminal with colors and NO_COLOR (https://no-color.org) is not set.
type Output struct {
	io.Writer
	Color bool
	Live  bool // lines can be overwritten
	Width int

	failure atomic.Pointer[error] // of the first write that failed
}

// Write records the first failure for the exit code.
func (t *Output) Write(b []byte) (int, error) {
	n, err := t.Writer.Write(b)
	if err != nil {
		t.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

// Err returns the error of the first write that failed.
func (t *Output) Err() error {
	if failure := t.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// New returns the output to a file, such as os.Stdout.
func New(f *os.File) *Output {
	columns, isTerminal := window(f)
	able := isTerminal && os.Getenv("TERM") != "dumb"
	return &Output{Writer: f, Color: able && os.Getenv("NO_COLOR") == "", Live: able, Width: width(columns)}
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

// Printf writes text as Sprintf formats it.
func (t *Output) Printf(format string, args ...any) {
	io.WriteString(t, string(Sprintf(format, args...)))
}

// JSON writes a value, indented. It escapes what does not print.
func (t *Output) JSON(v any) error {
	e := json.NewEncoder(Escaper{t})
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Good returns text in the color of success.
func (t *Output) Good(s string) Text { return t.in("32", s) }

// Bad returns text in the color of failure.
func (t *Output) Bad(s string) Text { return t.in("31", s) }

// Warn returns text in the color of warnings.
func (t *Output) Warn(s string) Text { return t.in("33", s) }

// Dim returns text of less importance.
func (t *Output) Dim(s string) Text { return t.in("2", s) }

// Bold returns text of more importance.
func (t *Output) Bold(s string) Text { return t.in("1", s) }

func (t *Output) in(code, s string) Text {
	if !t.Color {
		return Escape(s)
	}
	return Text("\x1b["+code+"m") + Escape(s) + "\x1b[0m"
}

// LabelWidth is the number of columns of labels.
const LabelWidth = 12

// Field writes a label and a text beside it.
func (t *Output) Field(label string, text Text) { t.Hang(Sprintf("%-*s", LabelWidth, label), text) }

// Hang writes a head and a text beside it, wrapped between words. A word that is
// longer than a line is not split, so that it can be copied.
func (t *Output) Hang(head, text Text) {
	indent := strings.Repeat(" ", visible(string(head)))
	for i, line := range Wrap(string(text), t.Width-len(indent)) {
		if i > 0 {
			head = Text(indent)
		}
		t.Printf("%s\n", Text(strings.TrimRight(string(head)+line, " ")))
	}
}

// Wrap splits a text into lines of at most the given number of columns.
func Wrap(text string, columns int) []string {
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

// Milliseconds formats a duration as 1.5 ms.
func Milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// Duration formats a duration with two units at most: 12s, 59m 03s, 4h 10m.
func Duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}
