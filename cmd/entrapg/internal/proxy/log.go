package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/logwriter"
)

// A log is the log of the proxy. A full disk, or a pipe that is full or closed,
// neither delays sessions nor ends the proxy.
type log struct {
	*slog.Logger
	writer *logwriter.Writer
}

func newLog(w io.Writer, format, level string) *log {
	// Writing to a closed pipe would end the process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var lowest slog.Level
	if err := lowest.UnmarshalText([]byte(level)); err != nil {
		lowest = slog.LevelInfo
	}
	l := &log{writer: logwriter.New(w, func(n int) []byte {
		var record bytes.Buffer
		slog.New(newHandler(&record, format, lowest)).Error("log records were dropped because they could not be written", "records", n)
		return record.Bytes()
	})}
	l.Logger = slog.New(newHandler(l.writer, format, lowest))
	return l
}

func newHandler(w io.Writer, format string, lowest slog.Level) slog.Handler {
	options := &slog.HandlerOptions{Level: lowest, ReplaceAttr: withUnits}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// withUnits writes durations as text in JSON too, which has numbers of nanoseconds
// otherwise.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// close waits a moment for records to be written.
func (l *log) close() { l.writer.Close(2 * time.Second) }
