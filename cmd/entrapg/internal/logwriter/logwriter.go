// Package logwriter keeps log records from delaying or ending a program whose
// log can no longer be written, because a disk is full or a pipe has no reader.
package logwriter

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// maxQueued bounds the bytes that wait to be written.
const maxQueued = 1 << 20

// A Writer writes records in the background. Write never blocks and never fails:
// records that do not fit the queue, or that cannot be written, are dropped.
type Writer struct {
	dst     io.Writer
	dropped func(n int) []byte // the record to write after n were dropped

	mu     sync.Mutex
	queue  [][]byte
	size   int // of the records in queue
	lost   int // records since the last one that was written
	closed bool

	wake chan struct{} // buffers one signal
	done chan struct{}
}

// New returns a Writer to dst. dropped returns the record that is written after n
// records were dropped.
func New(dst io.Writer, dropped func(n int) []byte) *Writer {
	w := &Writer{dst: dst, dropped: dropped, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write queues a copy of a record.
func (w *Writer) Write(record []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.size+len(record) > maxQueued {
		w.lost++
		return len(record), nil
	}
	w.queue = append(w.queue, append([]byte(nil), record...))
	w.size += len(record)
	w.signal()
	return len(record), nil
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close waits until all records are written, but for at most the given time.
func (w *Writer) Close(wait time.Duration) error {
	w.mu.Lock()
	w.closed = true
	w.signal()
	w.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-time.After(wait):
		return fmt.Errorf("log records could not be written in %s", wait)
	}
}

func (w *Writer) run() {
	defer close(w.done)
	for {
		records, lost, closed := w.take()
		for _, record := range records {
			if lost > 0 {
				if _, err := w.dst.Write(w.dropped(lost)); err == nil {
					lost = 0
				}
			}
			if _, err := w.dst.Write(record); err != nil {
				lost++
			}
		}
		w.addLost(lost)
		switch {
		case len(records) > 0:
		case closed:
			return
		default:
			<-w.wake
		}
	}
}

// take removes all records from the queue, and returns them with the number of
// records that were dropped since the last call.
func (w *Writer) take() (records [][]byte, lost int, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	records, w.queue, w.size = w.queue, nil, 0
	if len(records) > 0 {
		lost, w.lost = w.lost, 0
	}
	return records, lost, w.closed
}

func (w *Writer) addLost(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost += n
}
