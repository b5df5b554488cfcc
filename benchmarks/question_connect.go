package main

import (
	"context"
	"database/sql/driver"
	"runtime"
	"slices"
	"time"
)

var warmConnect = question{
	name: "Connect as a whole, with a fresh token",
	how: "Connect of each way and of the static password take turns; the ratio is the median over all pairs. " +
		"The credential returns a cached token. Allocations are the lowest of several batches, including those of the " +
		"server in the same process.",
	ask: askWarmConnect,
}

func askWarmConnect(ctx context.Context, b *bench) ([]*Row, error) {
	const limit, allowed = 1.02, 10
	connectors, _, err := b.connectors(ctx, func() *credential { return clientSecret(b.principal, 0) })
	if err != nil {
		return nil, err
	}
	defer closeAll(connectors)

	whole := &Row{Name: "Connect", Unit: "ms", Figures: map[string]Figure{}}
	var least []float64
	for _, w := range ways {
		if w.name == floor {
			continue
		}
		rounds, target := pick(b.short, 5, 250), 1e9
		if w.name == ours {
			rounds, target = pick(b.short, 10, 1000), limit
		}
		var own []float64
		ratios, err := b.settle(target, rounds, func(i int) (float64, error) {
			a, s, err := pair(ctx, i, connectors[w.name], connectors[floor])
			own, least = append(own, milliseconds(a)), append(least, milliseconds(s))
			return float64(a) / float64(s), err
		})
		if err != nil {
			return nil, err
		}
		whole.Figures[w.name] = Figure{Value: median(own)}
		if w.name == ours {
			whole.atMost(limit, floor, ratios)
		}
	}
	whole.Figures[floor] = Figure{Value: median(least)}

	allocations := &Row{
		Name: "allocations of Connect", Unit: "n", Figures: map[string]Figure{},
		Of: "beyond " + floor, Target: "≤ +10",
	}
	counts := map[string][]float64{}
	for range pick(b.short, 2, 15) {
		for _, w := range ways {
			n, err := mallocs(pick(b.short, 5, 30), func() error {
				_, err := connect(ctx, connectors[w.name])
				return err
			})
			if err != nil {
				return nil, err
			}
			counts[w.name] = append(counts[w.name], n)
		}
	}
	for name, c := range counts {
		allocations.Figures[name] = Figure{Value: slices.Min(c)} // other work in the process can only add
	}
	allocations.judge(allocations.Figures[ours].Value <= allocations.Figures[floor].Value+allowed)
	return []*Row{whole, allocations}, nil
}

// pair connects with both connectors, in an order that alternates.
func pair(ctx context.Context, i int, a, b driver.Connector) (tookA, tookB time.Duration, err error) {
	if i%2 == 1 {
		tookB, tookA, err = pair(ctx, 0, b, a)
		return tookA, tookB, err
	}
	if tookA, err = connect(ctx, a); err != nil {
		return 0, 0, err
	}
	tookB, err = connect(ctx, b)
	return tookA, tookB, err
}

// mallocs returns the allocations of a call, the average of n.
func mallocs(n int, call func() error) (float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if err := call(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), nil
}
