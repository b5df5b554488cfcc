package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTerminal_TextFitsNarrowWindow(t *testing.T) {
	for _, columns := range []int{40, 60, 80} {
		var b bytes.Buffer
		out := &terminal{Writer: &b, color: true, width: columns}
		out.hang(out.good("✓")+" a label   ", styled(strings.Repeat("some words ", 30))+out.bold("at last"))
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for i, line := range lines {
			if n := visible(line); n > columns || strings.HasSuffix(line, " ") {
				t.Errorf("%d columns of %d: %q", n, columns, line)
			}
			if i > 0 && !strings.HasPrefix(line, strings.Repeat(" ", len("✓ a label   ")-len("✓")+1)) {
				t.Errorf("not indented: %q", line)
			}
		}
		if got := strings.Join(strings.Fields(b.String()), " "); !strings.HasSuffix(got, "some words \x1b[1mat last\x1b[0m") {
			t.Errorf("words are lost: %q", got)
		}
	}
}

func TestTerminal_LongWordsAreNotSplit(t *testing.T) {
	word := strings.Repeat("x", 100)
	if lines := wrap("a "+word+" b", 40); len(lines) != 3 || lines[1] != word {
		t.Errorf("got %q", lines)
	}
}
