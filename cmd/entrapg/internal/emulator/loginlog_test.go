package emulator

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A stopped output is a terminal after Ctrl-S, or a pipe without a reader.
type stopped struct {
	bytes.Buffer
	resumed chan struct{}
}

func (s *stopped) Write(b []byte) (int, error) {
	<-s.resumed
	return s.Buffer.Write(b)
}

func TestLoginLog_OutputThatIsNotReadDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stopped{resumed: make(chan struct{})}
		log := newLoginLog(command.Streams{Out: &terminal.Output{Writer: out, Width: 80}})
		log.start()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range 10_000 {
				log.write(entrapgtest.Login{User: "eve", Database: "x", Application: strings.Repeat("a", 8000), Accepted: true})
			}
			log.writeStopped()
			log.stop()
		}()
		time.Sleep(time.Minute) // of the test's clock
		select {
		case <-ended:
		default:
			t.Error("the emulator waits for its output")
		}
		close(out.resumed)
		synctest.Wait()
		if !strings.Contains(out.String(), "lines are missing here") {
			t.Errorf("the log does not report missing lines:\n%.300s", out.String())
		}
	})
}

func TestLoginLog_ShortensNamesOfClients(t *testing.T) {
	var text bytes.Buffer
	long := strings.Repeat("x", 8000)
	writeLogin(&terminal.Output{Writer: &text, Width: 80},
		entrapgtest.Login{User: long, Database: long, Application: long, Code: "28000", Reason: long})
	if n := text.Len(); n > 2000 {
		t.Errorf("a login is logged in %d bytes", n)
	}
}
