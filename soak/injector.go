package main

import (
	"context"
	"math/rand/v2"
	"time"
)

// An injector exposes a rig to faults, and tells the report which one is active.
type injector struct {
	rig    *rig
	report *report
	random *rand.Rand
}

// run injects one fault after the other until ctx ends: all of them in random
// order, and then again in another order.
func (i injector) run(ctx context.Context) {
	var deck []int
	for ctx.Err() == nil {
		if len(deck) == 0 {
			deck = i.random.Perm(len(faults))
		}
		f := faults[deck[0]]
		deck = deck[1:]
		i.report.enter(f.name)
		if _, err := i.rig.expose(ctx, &f); err != nil && ctx.Err() == nil {
			i.rig.checker.addViolation("%s cannot be injected: %v", f.name, err)
		}
		i.report.enter("")
		// Queries must not fail before the next fault.
		calm := f.within + i.rig.checker.slack + i.rig.checker.longestStall()
		_ = sleep(ctx, calm+time.Duration(i.random.Int64N(int64(2*time.Second))))
	}
	// Wait for the queries that the last fault affects.
	_ = sleep(context.WithoutCancel(ctx), soon)
}
