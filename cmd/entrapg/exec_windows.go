package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
)

// become runs a program in this one's place. The console gives Ctrl-C to both, and
// it is the program's to decide about.
func become(path string, argv, env []string) error {
	signal.Ignore(os.Interrupt)
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitCode(exit.ExitCode())
	}
	return err
}
