//go:build !windows

package doctor

import "syscall"

// errRefused is the error if nothing listens.
const errRefused = syscall.ECONNREFUSED
