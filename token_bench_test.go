package entrapg

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/entrapg/entrapg/internal/token"
)

// BenchmarkTokenStep compares the cost of a fresh cached token with its lower bound, one clock
// reading and one atomic load. The two alternate, so that changes of the machine's speed do not
// affect the ratio.
func BenchmarkTokenStep(b *testing.B) {
	i := newIdentity(identityKey{}, sourceOf(&oneHour{}))
	key := any(loginKey{"server", "app"})
	if _, _, _, err := i.get(b.Context(), token.Request{Key: key, Log: quiet}, "app"); err != nil {
		b.Fatal(err)
	}
	get := func(n int) {
		for range n {
			if t, _ := i.fresh(key, "app"); t == nil {
				b.Error("no fresh token")
				return
			}
		}
	}

	var current atomic.Pointer[token.Token]
	t, _ := i.fresh(key, "app")
	current.Store(t)
	floor := func(n int) {
		var clock time.Time
		var seen *token.Token
		for range n {
			clock, seen = time.Now(), current.Load()
		}
		_, _ = clock, seen
	}

	const batch = 1 << 17
	timed := func(f func(int)) float64 {
		start := time.Now()
		f(batch)
		return float64(time.Since(start)) / batch
	}
	// crowd divides the work of f among 64 goroutines.
	crowd := func(f func(int)) func(int) {
		const goroutines = 64
		return func(n int) {
			var all sync.WaitGroup
			for range goroutines {
				all.Go(func() { f(n / goroutines) })
			}
			all.Wait()
		}
	}

	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		get(b.N)
	})
	b.Run("floor", func(b *testing.B) { floor(b.N) })
	for _, bench := range []struct {
		name       string
		get, floor func(int)
	}{
		{"ratio", get, floor},
		{"parallel", crowd(get), crowd(floor)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var tokens, floors, toFloor, toOne []float64
			for range max(31, b.N/batch) {
				t, f, one := timed(bench.get), timed(bench.floor), timed(get)
				tokens, floors = append(tokens, t), append(floors, f)
				toFloor, toOne = append(toFloor, t/f), append(toOne, t/one)
			}
			b.ReportMetric(middle(tokens), "ns/token")
			b.ReportMetric(middle(floors), "ns/floor")
			b.ReportMetric(middle(toFloor), "×floor")
			b.ReportMetric(middle(toOne), "×one")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// middle returns the median.
func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
