// Package signaltest prepares tests that send signals to processes.
package signaltest

import (
	"os"
	"os/signal"
	"syscall"
)

// Restore gives processes that this one starts the default action of signals that
// nohup or a shell's background job has set to be ignored. A process inherits
// ignored signals, and a shell script cannot trap them.
func Restore() {
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}
