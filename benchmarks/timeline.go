package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A Timeline is what the picture shows: connects through several token lifetimes
// and an outage of Entra.
type Timeline struct {
	Life    float64           `json:"life"` // of a token, in seconds, as all times except latencies
	Latency float64           `json:"latency"`
	Every   float64           `json:"every"`
	Down    [2]float64        `json:"down"`
	Until   float64           `json:"until"`
	Ways    map[string][]Seen `json:"ways"`
}

// Seen is one connect: its start in seconds, its duration in milliseconds, and 0 if
// it succeeded, 1 if it failed, or 2 if it panicked.
type Seen [3]float64

const (
	failed   = 1
	panicked = 2
)

// watch connects with all ways on a schedule that a slow connect does not delay.
// Refreshes are due at 15 s and about 30 s. The outage starts at the second one.
func watch(ctx context.Context, b *bench) (*Timeline, *Row, error) {
	second := pick(b.short, 50*time.Millisecond, time.Second)
	life, latency, every := 20*second, second/2, pick(b.short, second, second/5)
	down, up, until := 29*second, 65*second/2, 60*second

	b.tokensLive(pick(b.short, time.Minute, life)) // in a short run, no login may fail
	defer b.tokensLive(0)
	t := &Timeline{
		Life: life.Seconds(), Latency: latency.Seconds(), Every: every.Seconds(),
		Down: [2]float64{down.Seconds(), up.Seconds()}, Until: until.Seconds(), Ways: map[string][]Seen{},
	}
	connectors, credentials, err := b.connectors(ctx, func() *credential { return clientSecret(b.principal, latency) })
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(connectors)

	begin := time.Now()
	for _, c := range credentials {
		defer time.AfterFunc(down, func() { c.down.Store(true) }).Stop()
		defer time.AfterFunc(up, func() { c.down.Store(false) }).Stop()
	}
	var all sync.WaitGroup
	for i, w := range ways {
		seen := make([]Seen, until/every)
		t.Ways[w.name] = seen
		offset := every * time.Duration(i) / time.Duration(len(ways)) // so that the ways do not connect at the same moment
		for n := range seen {
			all.Go(func() {
				if sleep(ctx, time.Until(begin.Add(offset+time.Duration(n)*every))) != nil {
					return
				}
				at := time.Since(begin)
				took, err := connect(ctx, connectors[w.name])
				seen[n] = Seen{round(at.Seconds(), 1000), round(milliseconds(took), 100), outcome(err)}
			})
		}
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return t, t.row(), nil
}

func outcome(err error) float64 {
	var panic errPanicked
	switch {
	case err == nil:
		return 0
	case errors.As(err, &panic):
		return panicked
	default:
		return failed
	}
}

// row returns the line of the table for the picture.
func (t *Timeline) row() *Row {
	row := &Row{
		Question: "the picture", Name: "served, 3 lives and an outage", Unit: "%",
		Figures: map[string]Figure{}, Target: "100 %",
	}
	for name, seen := range t.Ways {
		o := &observed{}
		for _, s := range seen {
			if s[2] == 0 {
				o.took = append(o.took, s[1])
				continue
			}
			o.failed++
		}
		row.Figures[name] = o.served()
	}
	row.judge(row.Figures[ours].Value == 100)
	return row
}

func round(v, precision float64) float64 { return float64(int64(v*precision+0.5)) / precision }
