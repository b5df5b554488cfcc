package monitor

import (
	"sync"
	"time"
)

// Tokens tells for how long token requests have failed while no token was
// available. It has no timer: it compares the counts that it is shown. The zero
// value has seen no failure.
type Tokens struct {
	mu       sync.Mutex
	expiry   time.Time // of the last token
	failures int64     // when that was seen first, or seen to be valid last
	since    time.Time // when later failures were seen first; zero if there were none
}

// Failing returns for how long requests have failed, given the number of failures
// so far and the expiry of the current token, which is zero if there is none. It
// returns false if a valid token is available, and also if none is but no request
// has failed since.
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
