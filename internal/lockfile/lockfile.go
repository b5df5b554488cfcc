// Package lockfile opens files that only one process at a time can have open for
// writing. The operating system releases a file when the process exits or crashes.
package lockfile

import (
	"errors"
	"os"
)

// ErrLocked reports a file that another process has open.
var ErrLocked = errors.New("in use by another process")

// Open opens a file for reading and writing, with flags such as os.O_CREATE, and
// locks it. On Unix, processes that inherit the descriptor share the lock, and
// other programs can still write to the file.
func Open(path string, flag int, perm os.FileMode) (*os.File, error) {
	return open(path, flag, perm)
}
