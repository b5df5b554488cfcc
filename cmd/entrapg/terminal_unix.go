//go:build linux || darwin

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// window asks a terminal how wide it is, 0 where it does not know. Nothing else
// has an answer.
func window(f *os.File) (columns int, isTerminal bool) {
	var size struct{ rows, columns, x, y uint16 }
	_, _, err := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size.columns), err == 0
}
