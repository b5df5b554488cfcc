package command

import (
	"errors"
	"fmt"
)

// Exit codes. The command exec exits with the exit code of the program that it runs.
const (
	Done   = 0
	Failed = 1
	Misuse = 2
)

// An ExitCode is an error that has already been reported, and the exit code that it
// causes.
type ExitCode int

func (e ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// ErrReported is a failure that has already been reported. The exit code is Failed.
var ErrReported = errors.New("failed")
