package entrapg

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkTokenStep asks what a connection pays for a token that is fresh:
// against one clock reading and one atomic load, which is the least it can be.
// The two take turns, so that the ratio holds on a machine whose speed drifts.
func BenchmarkTokenStep(b *testing.B) {
	s := sourceOn(&oneHour{}, time.Now)
	if _, _, err := s.get(b.Context(), need{logger: quiet}); err != nil {
		b.Fatal(err)
	}
	a := &account{source: s, logger: quiet}
	ctx := b.Context()
	get := func(n int) {
		for range n {
			if _, _, _, err := a.get(ctx, "app"); err != nil {
				b.Fatal(err)
			}
		}
	}

	var current atomic.Pointer[token]
	current.Store(s.current.Load())
	var clock time.Time
	var seen *token
	floor := func(n int) {
		for range n {
			clock, seen = time.Now(), current.Load()
		}
	}

	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		get(b.N)
	})
	b.Run("floor", func(b *testing.B) { floor(b.N) })
	b.Run("ratio", func(b *testing.B) {
		const batch = 10_000
		timed := func(f func(int)) float64 {
			start := time.Now()
			f(batch)
			return float64(time.Since(start))
		}
		var ratios []float64
		for range max(31, b.N/batch) {
			ratios = append(ratios, timed(get)/timed(floor))
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "×floor")
		b.ReportMetric(0, "ns/op")
	})
	_, _ = clock, seen
}
