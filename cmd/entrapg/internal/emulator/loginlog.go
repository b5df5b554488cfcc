package emulator

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/logwriter"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A loginLog writes a line for each login. An output that is not read delays neither
// logins nor the end of the emulator.
type loginLog struct {
	std     command.Streams
	lines   *logwriter.Writer
	started atomic.Bool
}

func newLoginLog(std command.Streams) *loginLog {
	g := &loginLog{std: std}
	g.lines = logwriter.New(&reported{std: std}, func(n int) []byte {
		return g.format(func(t *terminal.Output) {
			t.Printf("%s\n", t.Warn(fmt.Sprintf("%d lines are missing here, because the output was not read", n)))
		})
	})
	return g
}

// start begins to log. Earlier logins are those of the emulator itself.
func (g *loginLog) start() { g.started.Store(true) }

// stop waits a moment for lines to be written.
func (g *loginLog) stop() { g.lines.Close(2 * time.Second) }

func (g *loginLog) write(l entrapgtest.Login) {
	if !g.started.Load() || l.Application == "pg_isready" && l.Code == "" && !l.Accepted { // a probe does not log in
		return
	}
	g.lines.Write(g.format(func(t *terminal.Output) { writeLogin(t, l) }))
}

// writeStopped writes that the emulator has stopped.
func (g *loginLog) writeStopped() {
	g.lines.Write(g.format(func(t *terminal.Output) { t.Printf("%s\n", t.Dim("stopped")) }))
}

// format returns what print writes.
func (g *loginLog) format(print func(*terminal.Output)) []byte {
	var text bytes.Buffer
	print(&terminal.Output{Writer: &text, Color: g.std.Out.Color, Width: g.std.Out.Width})
	return text.Bytes()
}

// A reported output reports the first write that fails. One goroutine writes.
type reported struct {
	std    command.Streams
	failed bool
}

func (r *reported) Write(b []byte) (int, error) {
	n, err := r.std.Out.Write(b)
	if err != nil && !r.failed {
		r.failed = true
		fmt.Fprintf(r.std.Err, "entrapg: the log of logins is incomplete: %v; the emulator keeps running\n", err)
	}
	return n, err
}

// maxReason bounds the reason of a rejection, which can repeat what the client sent.
const maxReason = 1024

// writeLogin writes one attempt to log in.
func writeLogin(t *terminal.Output, l entrapgtest.Login) {
	verdict, why := t.Good("✓"), "accepted"
	reason := l.Reason
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	switch {
	case l.Code != "":
		verdict, why = t.Bad("✗"), l.Code+" "+reason
	case !l.Accepted:
		verdict, why = t.Dim("·"), reason
	}
	who := logwriter.Clip(l.User) + " → " + logwriter.Clip(l.Database)
	if l.Application != "" {
		who += ", " + logwriter.Clip(l.Application)
	}
	t.Hang(terminal.Sprintf("%s %s ", l.Time.Format(time.TimeOnly), verdict), terminal.Escape(who+": "+why))
}
