package token

import (
	"math/rand/v2"
	"time"
)

// A pause delays the next attempt after unsuccessful ones. The zero value has ended.
type pause struct {
	attempts int // unsuccessful ones in a row
	until    time.Time
	length   time.Duration
}

// extend records another unsuccessful attempt and pauses for three quarters of d
// to d, at random so that processes that failed together do not retry together.
func (p *pause) extend(now time.Time, d time.Duration) {
	p.attempts++
	if d > 0 {
		d = d*3/4 + rand.N(d/4+1)
	}
	p.set(now, d)
}

func (p *pause) set(now time.Time, d time.Duration) {
	p.until, p.length = wall(now).Add(d), d
}

// left returns the remaining time of the pause. A clock that was set back does not
// extend it.
func (p *pause) left(now time.Time) time.Duration {
	left := p.until.Sub(wall(now))
	if left > p.length {
		return 0
	}
	return max(0, left)
}

// doubled returns first doubled n times, and at most limit.
func doubled(first time.Duration, n int, limit time.Duration) time.Duration {
	return min(first<<min(n, 16), limit)
}
