//go:build linux || darwin

package terminal

import (
	"os"
	"syscall"
	"unsafe"
)

// window returns the width of a terminal, which is 0 if it is unknown, and whether
// the file is a terminal.
func window(f *os.File) (columns int, isTerminal bool) {
	var size struct{ rows, columns, x, y uint16 }
	_, _, err := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size.columns), err == 0
}
