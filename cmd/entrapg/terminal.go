package main

import (
	"fmt"
	"io"
	"os"
)

// A terminal writes for people: with colour where there is a terminal that can
// show it and NO_COLOR (https://no-color.org) does not forbid it.
type terminal struct {
	io.Writer
	colour bool
}

func newTerminal(f *os.File) *terminal {
	info, err := f.Stat()
	isTerminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &terminal{Writer: f, colour: isTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (t *terminal) printf(format string, args ...any) { fmt.Fprintf(t, format, args...) }

func (t *terminal) good(s string) string { return t.in("32", s) }
func (t *terminal) bad(s string) string  { return t.in("31", s) }
func (t *terminal) dim(s string) string  { return t.in("2", s) }
func (t *terminal) bold(s string) string { return t.in("1", s) }

func (t *terminal) in(code, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
