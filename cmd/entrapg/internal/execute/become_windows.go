package execute

import (
	"os"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// become runs a command as a child, because Windows cannot replace a process.
func become(path string, argv, env []string) error { return runChild(path, argv, env) }

// codeOf returns the exit code of a process that failed.
func codeOf(state *os.ProcessState) command.ExitCode { return command.ExitCode(state.ExitCode()) }
