package terminal

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestTerminal_TextFitsNarrowWindow(t *testing.T) {
	for _, columns := range []int{40, 60, 80} {
		var b bytes.Buffer
		out := &Output{Writer: &b, Color: true, Width: columns}
		out.Hang(out.Good("✓")+" a label   ", Text(strings.Repeat("some words ", 30))+out.Bold("at last"))
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
			t.Errorf("words are missing: %q", got)
		}
	}
}

func TestTerminal_LongWordsAreNotSplit(t *testing.T) {
	word := strings.Repeat("x", 100)
	if lines := Wrap("a "+word+" b", 40); len(lines) != 3 || lines[1] != word {
		t.Errorf("got %q", lines)
	}
}

func TestTerminal_ColorOnlyIfSupported(t *testing.T) {
	for _, test := range []struct {
		terminal *Output
		want     string
	}{
		{&Output{Color: true}, "\x1b[32mok\x1b[0m"},
		{&Output{}, "ok"},
	} {
		if got := string(test.terminal.Good("ok")); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	if runtime.GOOS != "linux" {
		t.Skip("this system has no pseudoterminals at /dev/ptmx")
	}
	device, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0) // the other end of a new terminal
	if err != nil {
		t.Skip(err)
	}
	defer device.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // also a character device
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		out           *os.File
		noColor, term string
		want          bool
	}{
		{device, "", "xterm", true},
		{device, "1", "xterm", false},
		{device, "", "dumb", false},
		{file, "", "xterm", false},
		{null, "", "xterm", false},
	} {
		t.Setenv("NO_COLOR", test.noColor)
		t.Setenv("TERM", test.term)
		if got := New(test.out).Color; got != test.want {
			t.Errorf("%+v: color %t", test, got)
		}
	}
}
