//go:build !windows

package execute

import (
	"bufio"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestRunChild_ForwardsSignals(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "/bin/sh", "-c",
		`trap 'echo hangup' HUP; trap 'echo terminated; exit 9' TERM; echo ready; for i in $(seq 1200); do sleep 0.05; done`)
	cmd.Env = []string{"ENTRAPG_TEST_AS_PARENT=1"}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.SetReadDeadline(time.Now().Add(time.Minute))
	out := bufio.NewReader(r)
	for _, step := range []struct {
		line    string
		signals []os.Signal
	}{
		{"ready\n", []os.Signal{os.Interrupt, syscall.SIGQUIT, syscall.SIGHUP}}, // a terminal sends the first two to the child
		{"hangup\n", []os.Signal{syscall.SIGTERM}},
		{"terminated\n", nil},
	} {
		if line, err := out.ReadString('\n'); line != step.line {
			cmd.Process.Kill()
			t.Fatalf("%q, %v, want %q", line, err, step.line)
		}
		for _, s := range step.signals {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d", code)
	}
}
