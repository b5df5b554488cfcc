package token

import (
	"math/rand/v2"
	"time"
)

// A backoff delays the next attempt after unsuccessful ones. The zero value has ended.
type backoff struct {
	attempts int // unsuccessful ones in a row
	until    time.Time
	length   time.Duration
}

// extend records another unsuccessful attempt and delays the next one by three quarters
// of d to d, at random so that processes that failed together do not retry together.
func (b *backoff) extend(now time.Time, d time.Duration) {
	b.attempts++
	if d > 0 {
		d = d*3/4 + rand.N(d/4+1)
	}
	b.set(now, d)
}

func (b *backoff) set(now time.Time, d time.Duration) {
	b.until, b.length = wall(now).Add(d), d
}

// left returns the remaining time of the backoff. A clock that was set back does not
// extend it.
func (b *backoff) left(now time.Time) time.Duration {
	left := b.until.Sub(wall(now))
	if left > b.length {
		return 0
	}
	return max(0, left)
}

// doubled returns first doubled n times, and at most limit.
func doubled(first time.Duration, n int, limit time.Duration) time.Duration {
	return min(first<<min(n, 16), limit)
}
