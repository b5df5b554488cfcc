package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A checker checks that the active fault explains every failed query.
type checker struct {
	slack    time.Duration // added to every bound
	expiries bool          // tokens are so short-lived that one can expire during a login, which pgxpool does not retry

	mu             sync.Mutex
	stall          time.Duration // the longest pause of the machine
	fault          *fault
	from           time.Time                 // queries must not fail before
	ended          time.Time                 // zero while the fault is active
	failed         map[string]map[string]int // failures by pool and cause
	violations     []string                  // the first few failures that no fault explains
	violationCount int
}

// begin allows queries to fail as f allows.
func (c *checker) begin(f *fault, from time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.from, c.ended = f, from, time.Time{}
}

// end starts the time within which queries must succeed again.
func (c *checker) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = time.Now()
}

// record checks a query that has just failed. Attempts to log in that were in flight when
// the fault ended can fail late, so the time at which the query started counts.
func (c *checker) record(pool string, started time.Time, err error) {
	now, cause := time.Now(), causeOf(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = map[string]map[string]int{}
	}
	if c.failed[pool] == nil {
		c.failed[pool] = map[string]int{}
	}
	c.failed[pool][cause]++
	f := c.fault
	switch {
	case c.expiries && pool == pgxPool && cause == "login 28000":
	case f == nil:
		c.violate("without a fault, %s: %s: %v", pool, cause, err)
	case !slices.Contains(f.allows[pool], cause):
		c.violate("%s, %s: %s: %v", f.name, pool, cause, err)
	case now.Before(c.from):
		c.violate("%s, %s: %v too early: %v", f.name, pool, c.from.Sub(now), err)
	case !c.ended.IsZero() && started.After(c.ended.Add(f.within+c.slack+c.stall)):
		c.violate("%s, %s: a query that started %v after its end: %v", f.name, pool, started.Sub(c.ended), err)
	}
}

// watch measures pauses of the machine until ctx ends, because they delay logins
// too.
func (c *checker) watch(ctx context.Context) {
	const step = 20 * time.Millisecond
	for before := time.Now(); sleep(ctx, step) == nil; before = time.Now() {
		stall := time.Since(before) - step
		c.mu.Lock()
		c.stall = max(c.stall, stall)
		c.mu.Unlock()
	}
}

// longestStall returns the longest pause so far.
func (c *checker) longestStall() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stall
}

// violate records a failure that no fault explains.
func (c *checker) violate(format string, args ...any) {
	const kept = 20
	if c.violationCount++; c.violationCount <= kept {
		c.violations = append(c.violations, fmt.Sprintf(format, args...))
	}
}

// addViolation is like violate, for callers that do not hold the lock.
func (c *checker) addViolation(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.violate(format, args...)
}

// failures returns how many queries have failed, by pool and cause.
func (c *checker) failures() map[string]map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]map[string]int{}
	for pool, causes := range c.failed {
		all[pool] = maps.Clone(causes)
	}
	return all
}

// verdict returns the first failures that no fault explains, and their number.
func (c *checker) verdict() (violations []string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations), c.violationCount
}

// total returns the number of failures of all pools.
func total(failures map[string]map[string]int) int {
	n := 0
	for _, causes := range failures {
		n += sum(causes)
	}
	return n
}

// sum returns the number of failures of one pool.
func sum(causes map[string]int) int {
	n := 0
	for _, count := range causes {
		n += count
	}
	return n
}
