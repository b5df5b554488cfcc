//go:build !windows

package execute

import (
	"os"
	"syscall"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// become replaces this process with a command, which then handles signals and job
// control and sets the exit code. It returns only if that fails.
func become(path string, argv, env []string) error {
	if err := syscall.Exec(path, argv, env); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// codeOf returns the exit code of a process that failed. As in shells, it is 128
// and the signal's number if a signal ended the process.
func codeOf(state *os.ProcessState) command.ExitCode {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return command.ExitCode(128 + int(status.Signal()))
	}
	return command.ExitCode(state.ExitCode())
}
