package engine

import (
	"log/slog"
	"sync"
	"time"
)

// In each quietPeriod, a quietLog writes a record for each of the first quietRecords
// rejections, and one that counts the others.
const (
	quietPeriod  = time.Minute
	quietRecords = 20
)

// A quietLog limits the records about rejected clients that have not authenticated.
// Otherwise, an attacker could fill the disk.
type quietLog struct {
	log *slog.Logger

	mu      sync.Mutex
	begun   time.Time         // of the period
	records int               // in the period
	silent  map[Rejection]int // rejections without a record
	report  *time.Timer       // at the end of the period; nil if silent is empty
}

// rejected logs or counts a rejection.
func (q *quietLog) rejected(kind Rejection, record func()) {
	if q.count(kind) {
		record()
	}
}

// count counts a rejection. It reports whether the rejection has a record.
func (q *quietLog) count(kind Rejection) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if now.Sub(q.begun) >= quietPeriod {
		q.begun, q.records = now, 0
	}
	if q.records < quietRecords {
		q.records++
		return true
	}
	if q.report == nil {
		q.silent = map[Rejection]int{}
		q.report = time.AfterFunc(q.begun.Add(quietPeriod).Sub(now), q.flush)
	}
	q.silent[kind]++
	return false
}

// flush logs the number of rejections without a record.
func (q *quietLog) flush() {
	silent := q.takeSilent()
	if silent == nil {
		return
	}
	var counts []any
	for _, kind := range Rejections {
		if n := silent[kind]; n > 0 {
			counts = append(counts, string(kind), n)
		}
	}
	q.log.Warn("proxy: more connections rejected", counts...)
}

// takeSilent returns the rejections without a record and forgets them.
func (q *quietLog) takeSilent() map[Rejection]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.report == nil {
		return nil
	}
	q.report.Stop()
	q.report = nil
	silent := q.silent
	q.silent = nil
	return silent
}
