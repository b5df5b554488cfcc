package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// An umpire holds every failed query against what the fault in force allows.
type umpire struct {
	slack    time.Duration // on top of every bound
	expiries bool          // tokens live so briefly that one can expire on its way, which pgxpool reports

	mu     sync.Mutex
	stall  time.Duration // by which the machine has held the load up at the most
	fault  *fault
	from   time.Time                 // no query may fail before
	ended  time.Time                 // zero while the fault is in force
	failed map[string]map[string]int // failures by pool and cause
	fouls  []string                  // what no fault explains; the first few in words
	nFouls int
}

// begin lets queries fail from now on as f allows.
func (u *umpire) begin(f *fault, from time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fault, u.from, u.ended = f, from, time.Time{}
}

// end starts the time within which all has to be well again.
func (u *umpire) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = time.Now()
}

// record takes down that a query has failed just now.
func (u *umpire) record(pool string, err error) {
	now, cause := time.Now(), causeOf(err)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = map[string]map[string]int{}
	}
	if u.failed[pool] == nil {
		u.failed[pool] = map[string]int{}
	}
	u.failed[pool][cause]++
	f := u.fault
	switch {
	case u.expiries && pool == pgxPool && cause == "login 28000":
	case f == nil:
		u.foul("in fair weather, %s: %s: %v", pool, cause, err)
	case !slices.Contains(f.allows[pool], cause):
		u.foul("%s, %s: %s: %v", f.name, pool, cause, err)
	case now.Before(u.from):
		u.foul("%s, %s: %v too early: %v", f.name, pool, u.from.Sub(now), err)
	case !u.ended.IsZero() && now.After(u.ended.Add(f.within+u.slack+u.stall)):
		u.foul("%s, %s: still failing %v after its end: %v", f.name, pool, now.Sub(u.ended), err)
	}
}

// watch measures stalls until ctx ends: what a busy machine does to a login is not
// entrapg's doing.
func (u *umpire) watch(ctx context.Context) {
	const step = 20 * time.Millisecond
	for before := time.Now(); sleep(ctx, step) == nil; before = time.Now() {
		stall := time.Since(before) - step
		u.mu.Lock()
		u.stall = max(u.stall, stall)
		u.mu.Unlock()
	}
}

// longestStall is what watch has measured so far.
func (u *umpire) longestStall() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stall
}

// foul takes down what should not have happened.
func (u *umpire) foul(format string, args ...any) {
	const kept = 20
	if u.nFouls++; u.nFouls <= kept {
		u.fouls = append(u.fouls, fmt.Sprintf(format, args...))
	}
}

// protest is foul for those who do not hold the lock.
func (u *umpire) protest(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.foul(format, args...)
}

// failures returns how many queries have failed, by pool and cause.
func (u *umpire) failures() map[string]map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := map[string]map[string]int{}
	for pool, causes := range u.failed {
		all[pool] = maps.Clone(causes)
	}
	return all
}

// verdict returns what no fault explains.
func (u *umpire) verdict() (fouls []string, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.fouls), u.nFouls
}

// total sums failures up.
func total(failures map[string]map[string]int) int {
	n := 0
	for _, causes := range failures {
		for _, count := range causes {
			n += count
		}
	}
	return n
}
