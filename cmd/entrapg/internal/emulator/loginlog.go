package emulator

import (
	"fmt"
	"sync"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A loginLog writes a line for each login.
type loginLog struct {
	std command.Streams

	mu      sync.Mutex // guards the following; many goroutines write
	started bool
	failed  bool
}

// start begins to log. Earlier logins are those of the emulator itself.
func (g *loginLog) start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started = true
}

func (g *loginLog) write(l entrapgtest.Login) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started || l.Application == "pg_isready" && l.Code == "" && !l.Accepted { // a probe does not log in
		return
	}
	writeLogin(g.std.Out, l)
	if err := g.std.Out.Err(); err != nil && !g.failed {
		g.failed = true
		fmt.Fprintf(g.std.Err, "entrapg: the log of logins is incomplete: %v; the emulator keeps running\n", err)
	}
}

// writeLogin writes one attempt to log in.
func writeLogin(t *terminal.Output, l entrapgtest.Login) {
	verdict, why := t.Good("✓"), "accepted"
	switch {
	case l.Code != "":
		verdict, why = t.Bad("✗"), l.Code+" "+l.Reason
	case !l.Accepted:
		verdict, why = t.Dim("·"), l.Reason
	}
	who := l.User + " → " + l.Database
	if l.Application != "" {
		who += ", " + l.Application
	}
	t.Hang(terminal.Sprintf("%s %s ", l.Time.Format(time.TimeOnly), verdict), terminal.Escape(who+": "+why))
}
