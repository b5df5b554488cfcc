package entrapg

import (
	"log/slog"
)

// logging bounds the number of goroutines that logLater starts.
var logging = make(chan struct{}, 64)

// logLater logs a warning on another goroutine, because a slog.Handler may itself need a
// connection. It drops records while the handler blocks.
func logLater(log *slog.Logger, message string, args ...any) {
	select {
	case logging <- struct{}{}:
		go func() {
			defer func() { <-logging }()
			log.Warn(message, args...)
		}()
	default:
	}
}
