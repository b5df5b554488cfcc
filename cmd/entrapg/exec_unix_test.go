//go:build !windows

package main

import (
	"bufio"
	"io"
	"os"
	"syscall"
	"testing"
)

func TestExec_ForwardsSignals(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "exec-signal", true)
	for name, signal := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1} {
		cmd, _, _ := program(t, "exec", "--", "sh", "-c", `trap 'echo got it; exit 9' `+name+`; echo ready; while :; do sleep 0.05; done`)
		cmd.Env = append(cmd.Env, env...)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		out := bufio.NewReader(r)
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		cmd.Process.Signal(signal)
		printed, _ := io.ReadAll(out)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 9 || string(printed) != "got it\n" {
			t.Errorf("%s: exit code %d, %q", name, code, printed)
		}
	}
}
