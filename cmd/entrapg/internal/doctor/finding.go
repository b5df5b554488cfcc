package doctor

import (
	"fmt"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/settings"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/pgwire"
)

// A finding is the result of a step.
type finding struct {
	Step     string             `json:"step"`
	Status   status             `json:"status"`
	Found    []string           `json:"found,omitempty"`
	Settings []settings.Setting `json:"settings,omitempty"`
	problem
	Took int64 `json:"milliseconds"`
}

// A problem is a failure or a warning, with its explanation and fix.
type problem struct {
	Error       string   `json:"error,omitempty"` // the message of the server, Entra or the network
	Explanation string   `json:"explanation,omitempty"`
	Fix         []string `json:"fix,omitempty"` // lines to paste, and comments that begin with # or --
}

// A status is the outcome of a step, as in the JSON output.
type status string

const (
	statusOK      status = "ok"
	statusWarning status = "warning" // the login continues
	statusFailed  status = "failed"
)

func (f *finding) note(format string, args ...any) {
	f.Found = append(f.Found, fmt.Sprintf(format, args...))
}

// warn records a problem that does not end the login.
func (f *finding) warn(p *problem) {
	if f.Status == statusOK {
		f.Status, f.problem = statusWarning, *p
	}
}

// redact removes a token. A server that has accepted the login could repeat it, and
// findings are meant to be shown to others.
func (f *finding) redact(token string) {
	clean := func(s string) string { return string(pgwire.Redact([]byte(s), token)) }
	for _, texts := range [][]string{f.Found, f.Fix} {
		for i, text := range texts {
			texts[i] = clean(text)
		}
	}
	f.Error, f.Explanation = clean(f.Error), clean(f.Explanation)
}

func (f *finding) write(out *terminal.Output) {
	symbol := map[status]terminal.Text{
		statusOK: out.Good("✓"), statusWarning: out.Warn("!"),
		statusFailed: out.Bad("✗"),
	}[f.Status]
	head := terminal.Sprintf("%s %-*s", symbol, terminal.LabelWidth, f.Step)
	for _, text := range f.Found {
		out.Hang(head, terminal.Escape(text))
		head = terminal.Text(strings.Repeat(" ", 2+terminal.LabelWidth))
	}
	if f.Status == statusOK {
		return
	}
	if f.Error != "" {
		text := terminal.Escape(f.Error)
		if f.Status == statusFailed {
			text = out.Bad(f.Error)
		}
		out.Hang(head, text)
	} else if len(f.Found) == 0 {
		out.Hang(head, terminal.Escape(f.Explanation))
	}
	if f.Explanation != "" && (f.Error != "" || len(f.Found) > 0) {
		out.Hang(terminal.Sprintf("  %-*s", terminal.LabelWidth, "means"), terminal.Escape(f.Explanation))
	}
	if len(f.Fix) > 0 {
		out.Printf("  to fix it\n")
	}
	for _, line := range f.Fix { // commands are not wrapped, so that they can be copied
		if mark, text, _ := strings.Cut(line, " "); isComment(line) {
			if mark == "#" {
				text = quote.Inert(text)
			}
			for _, part := range terminal.Wrap(text, out.Width-4-len("-- ")) {
				out.Printf("    %s\n", out.Dim(mark+" "+part))
			}
			continue
		}
		out.Printf("    %s\n", out.Bold(line))
	}
}

// isComment reports whether a line of a fix is a comment of a shell or of SQL.
func isComment(line string) bool {
	return strings.HasPrefix(line, "--") || strings.HasPrefix(line, "#")
}
