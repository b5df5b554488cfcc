package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sink receives records.
type sink struct {
	mu      sync.Mutex
	written bytes.Buffer
	err     error
	blocked chan struct{} // if not nil, Write waits for it
}

func (s *sink) Write(b []byte) (int, error) {
	if s.blocked != nil {
		<-s.blocked
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.written.Write(b)
}

func (s *sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written.String()
}

func dropped(n int) []byte { return fmt.Appendf(nil, "dropped %d\n", n) }

func TestWriter_WritesAllRecordsBeforeClose(t *testing.T) {
	var s sink
	w := New(&s, dropped)
	record := []byte("record 0\n")
	var want strings.Builder
	for i := range 10 {
		record[len("record ")] = '0' + byte(i) // Write has made a copy
		w.Write(record)
		want.Write(record)
	}
	if err := w.Close(time.Minute); err != nil {
		t.Error(err)
	}
	if s.text() != want.String() {
		t.Errorf("got %q", s.text())
	}
}

func TestWriter_DropsRecordsWithoutReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{blocked: make(chan struct{})}
		w := New(s, dropped)
		w.Write([]byte("first\n"))
		synctest.Wait() // it is being written
		record := bytes.Repeat([]byte("x"), maxQueued/4)
		for range 7 {
			w.Write(record)
		}
		if err := w.Close(time.Second); err == nil {
			t.Error("Close does not report that records are left")
		}
		close(s.blocked)
		synctest.Wait()
		if got, want := s.text(), "first\ndropped 3\n"+strings.Repeat(string(record), 4); got != want {
			t.Errorf("%d bytes, want %d; they begin with %.30q", len(got), len(want), got)
		}
	})
}

func TestWriter_ContinuesWhenDiskHasSpaceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		w := New(&s, dropped)
		s.fail(errors.New("no space left on device"))
		for range 3 {
			w.Write([]byte("lost\n"))
			synctest.Wait()
		}
		s.fail(nil)
		w.Write([]byte("later\n"))
		if err := w.Close(time.Minute); err != nil {
			t.Error(err)
		}
		if s.text() != "dropped 3\nlater\n" {
			t.Errorf("got %q", s.text())
		}
	})
}
