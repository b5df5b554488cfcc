package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuietLog_CountsOmittedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text lockedBuffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		q := &quietLog{log: log}
		reject := func(n int, kind Rejection) {
			for range n {
				q.rejected(kind, func() { log.Warn("one") })
			}
		}
		logged := func() (records, reports int, last string) {
			lines := strings.Split(strings.TrimSpace(text.take()), "\n")
			for _, line := range lines {
				records += strings.Count(line, "msg=one")
				reports += strings.Count(line, `msg="proxy: more connections rejected"`)
			}
			return records, reports, lines[len(lines)-1]
		}
		time.Sleep(time.Hour)
		reject(quietRecords, RejectedPassword)
		reject(30, RejectedPassword)
		reject(70, RejectedDropped)
		if records, reports, _ := logged(); records != quietRecords || reports != 0 {
			t.Errorf("%d records and %d reports at first", records, reports)
		}
		time.Sleep(quietPeriod)
		synctest.Wait()
		if records, reports, last := logged(); records != 0 || reports != 1 || !strings.HasSuffix(last, "password=30 dropped=70") {
			t.Errorf("%d records and %d reports at the end of the period: %s", records, reports, last)
		}
		reject(1, RejectedPassword)
		if records, _, _ := logged(); records != 1 {
			t.Errorf("%d records in the next period", records)
		}
		reject(quietRecords, RejectedStartup)
		q.flush()
		q.flush()
		if records, reports, last := logged(); records != quietRecords-1 || reports != 1 || !strings.HasSuffix(last, "startup=1") {
			t.Errorf("%d records and %d reports after flush: %s", records, reports, last)
		}
	})
}

// A lockedBuffer is a buffer for concurrent use.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what has been written since the last call.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}
