package monitor

import (
	"sync"
	"time"
)

// Tokens measures for how long token requests have failed while no token was
// available. It has no timer: it compares the counts of successive calls. The zero
// value has seen no failure.
type Tokens struct {
	mu       sync.Mutex
	expiry   time.Time // of the last token
	failures int64     // the count when expiry was first seen, or last seen to be in the future
	since    time.Time // when a higher count was first seen; zero if it was not
}

// Failing returns how long requests have failed, given the number of failures so far and
// the expiry of the current token, which is zero if there is none. It returns false if a
// valid token is available, or if no request has failed since the last one expired.
func (t *Tokens) Failing(now time.Time, failures int64, expiry time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if expiry.After(now) || !expiry.Equal(t.expiry) {
		t.expiry, t.failures, t.since = expiry, failures, time.Time{}
	}
	if failures <= t.failures {
		return 0, false
	}
	if t.since.IsZero() {
		t.since = now
	}
	return now.Sub(t.since), true
}
