package execute

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
)

// Exit codes of env and sudo for a command that does not run.
const (
	notExecutable command.ExitCode = 126
	notFound      command.ExitCode = 127
)

// findCommand returns the path of a command, or an error as shells report it: a
// file that exists but is not executable counts as found.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	if !errors.Is(err, exec.ErrNotFound) || name == "" {
		return path, err
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if file := filepath.Join(dir, name); dir != "" && exists(file) {
			return "", &fs.PathError{Op: "exec", Path: file, Err: fs.ErrPermission}
		}
	}
	return "", err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// startFailure returns the exit code and the message for a command that did not
// start.
func startFailure(name string, err error) (command.ExitCode, string) {
	switch {
	case name == "":
		return notFound, "exec: the command is empty; check the variable that it comes from"
	case errors.Is(err, exec.ErrNotFound):
		return notFound, fmt.Sprintf("exec: %q is not in PATH; install it, or run it by its path", name)
	case errors.Is(err, exec.ErrDot):
		return notExecutable,
			fmt.Sprintf("exec: %q is in the current directory, where commands are not searched; run %s", name,
				quote.Shell("."+string(filepath.Separator)+name))
	}
	var failed *fs.PathError
	if errors.As(err, &failed) {
		name, err = failed.Path, failed.Err
	} else if cause := errors.Unwrap(err); cause != nil { // exec.Error repeats the name
		err = cause
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && exists(name):
		return notFound, fmt.Sprintf("exec: %q did not start: its interpreter is missing; check its first line", name)
	case errors.Is(err, fs.ErrNotExist):
		return notFound, fmt.Sprintf("exec: %q does not exist", name)
	case strings.Contains(err.Error(), "exec format error"):
		return notExecutable, fmt.Sprintf("exec: %q cannot be executed: %v; a script must begin with #!, as in #!/bin/sh",
			name, err)
	}
	return notExecutable, fmt.Sprintf("exec: %q cannot be executed: %v", name, err)
}

// runChild runs a command as a child and waits for its end, even if this process
// gets a signal. The terminal sends interrupts to the child too; SIGTERM and SIGHUP
// are forwarded. runChild returns nil, an ExitCode, or an error if the command did
// not start.
func runChild(path string, argv, env []string) error {
	// Catch the signals: if this process ignored them, the child would inherit that,
	// and without a handler Windows would end this process. Signals that nohup
	// ignores remain ignored.
	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	cmd := &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return err
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM || s == syscall.SIGHUP {
					cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	signal.Stop(signals)
	close(ended)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return codeOf(exit.ProcessState)
	}
	return err
}

// resultOf returns the result of a command that ran. If it did not start, resultOf
// reports that.
func resultOf(std command.Streams, name string, err error) error {
	if code := command.ExitCode(0); err == nil || errors.As(err, &code) {
		return err
	}
	return notStarted(std, name, err)
}

// notStarted reports that the command did not start, and returns its exit code.
func notStarted(std command.Streams, name string, err error) error {
	code, text := startFailure(name, err)
	fmt.Fprintln(std.Err, "entrapg:", text)
	return code
}
