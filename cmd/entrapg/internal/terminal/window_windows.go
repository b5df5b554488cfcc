package terminal

import (
	"os"
	"syscall"
	"unsafe"
)

var (
	kernel32         = syscall.NewLazyDLL("kernel32.dll")
	setConsoleMode   = kernel32.NewProc("SetConsoleMode")
	screenBufferInfo = kernel32.NewProc("GetConsoleScreenBufferInfo")
)

// window returns the width of a console and turns on the interpretation of escape
// sequences. A console that does not support them is not a terminal for this
// program.
func window(f *os.File) (columns int, isTerminal bool) {
	const processedOutput, virtualTerminalProcessing = 0x1, 0x4
	var mode uint32
	if err := syscall.GetConsoleMode(syscall.Handle(f.Fd()), &mode); err != nil {
		return 0, false
	}
	if done, _, _ := setConsoleMode.Call(f.Fd(), uintptr(mode|processedOutput|virtualTerminalProcessing)); done == 0 {
		return 0, false
	}
	var info struct {
		size, cursor             struct{ x, y int16 }
		attributes               uint16
		left, top, right, bottom int16 // of the window
		largest                  struct{ x, y int16 }
	}
	if done, _, _ := screenBufferInfo.Call(f.Fd(), uintptr(unsafe.Pointer(&info))); done != 0 {
		columns = int(info.right-info.left) + 1
	}
	return columns, true
}
