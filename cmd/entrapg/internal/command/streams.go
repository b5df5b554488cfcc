// Package command contains the parts that the commands of entrapg share: output streams,
// exit codes, usage errors, and kinds of flags.
package command

import (
	"io"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// Streams are the outputs of a command: Out for its results, Err for everything else.
type Streams struct {
	Out *terminal.Output
	Err io.Writer
}
