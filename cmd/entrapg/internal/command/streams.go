// Package command has what all commands of entrapg need: output streams, exit codes,
// errors of usage, and kinds of flags.
package command

import (
	"io"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// Streams are where a command writes its results, and everything else.
type Streams struct {
	Out *terminal.Output
	Err io.Writer
}
