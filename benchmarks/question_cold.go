package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const coldLatency = 400 * time.Millisecond

var coldPool = question{
	name: "cold pool of 20, credential as the Azure CLI's",
	how: "20 goroutines each open a connection of one sql.DB; the time until all have one. A token request takes " +
		"400 ms, the credential caches nothing and makes one request at a time. The ratio compares the time without " +
		"those 400 ms with that of the same pool with a static password.",
	ask: askColdPool,
}

func askColdPool(ctx context.Context, b *bench) ([]*Row, error) {
	const limit, size = 1.1, 20
	latency := pick(b.short, 20*time.Millisecond, coldLatency)
	requests := &Row{Name: "cold pool of 20: requests", Unit: "n", Figures: map[string]Figure{}}
	whole := &Row{Name: "cold pool of 20", Unit: "ms", Figures: map[string]Figure{}}

	once := func(w way) (time.Duration, error) {
		c := commandLine(b.principal, latency)
		begin := time.Now()
		connector, err := b.open(ctx, w, c, nil)
		if err != nil {
			return 0, err
		}
		defer closeConnector(connector)
		took, err := fillPool(ctx, connector, size, begin)
		requests.Figures[w.name] = Figure{Value: max(requests.Figures[w.name].Value, float64(c.requests.Load()))}
		return took, err
	}
	times := map[string][]float64{}
	ratios, err := b.settle(limit, pick(b.short, 1, 9), func(i int) (float64, error) {
		a, s := ways[0], ways[1]
		if i%2 == 1 {
			a, s = s, a
		}
		took := map[string]time.Duration{}
		for _, w := range []way{a, s} {
			t, err := once(w)
			if err != nil {
				return 0, err
			}
			took[w.name] = t
			times[w.name] = append(times[w.name], milliseconds(t))
		}
		return float64(took[ours]-latency) / float64(took[floor]), nil
	})
	if err != nil {
		return nil, err
	}
	for _, w := range ways[2:] {
		t, err := once(w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		times[w.name] = []float64{milliseconds(t)}
	}
	for name, t := range times {
		whole.Figures[name] = Figure{Value: median(t)}
	}
	delete(requests.Figures, floor)
	requests.valueAtMost(1)
	whole.atMost(limit, "static, without the latency", ratios)
	return []*Row{requests, whole}, nil
}

// fillPool opens all connections of a pool at once. It returns the time since
// begin.
func fillPool(ctx context.Context, connector driver.Connector, size int, begin time.Time) (time.Duration, error) {
	db := sql.OpenDB(connector)
	defer db.Close()
	conns, errs := make([]*sql.Conn, size), make([]error, size)
	var all sync.WaitGroup
	for i := range size {
		all.Go(func() { conns[i], errs[i] = db.Conn(ctx) })
	}
	all.Wait()
	took := time.Since(begin)
	for i, conn := range conns {
		if errs[i] != nil {
			return 0, errs[i]
		}
		conn.Close()
	}
	return took, nil
}

var coldCrowd = question{
	name: "1,000 cold connects at once, credential as a managed identity's",
	how: "1,000 goroutines call Connect of one connector at the same time. A token request takes 400 ms, the " +
		"credential caches nothing, and requests do not wait for each other. At most 200 connections at a time reach " +
		"the server, which accepts 300. Goroutines beyond those of the callers are counted halfway through the first " +
		"request. The ratio compares p99 without those 400 ms with that of the static password.",
	ask: askColdCrowd,
}

func askColdCrowd(ctx context.Context, b *bench) ([]*Row, error) {
	const limit = 1.1
	latency := pick(b.short, 20*time.Millisecond, coldLatency)
	size := pick(b.short, 20, 1000)
	requests := &Row{Name: "1,000 connects at once: requests", Unit: "n", Figures: map[string]Figure{}}
	beyond := &Row{Name: "goroutines beyond the callers", Unit: "n", Figures: map[string]Figure{}}
	slow := &Row{Name: "1,000 connects at once: p99", Unit: "ms", Figures: map[string]Figure{}}

	once := func(w way) (float64, error) {
		c := managedIdentity(b.principal, latency)
		base := goroutines()
		var count sync.Once
		open := false
		c.during = func() {
			if !open { // the constructor's request, before the callers started
				return
			}
			count.Do(func() {
				extra := float64(max(0, runtime.NumGoroutine()-base-size))
				beyond.Figures[w.name] = Figure{Value: max(beyond.Figures[w.name].Value, extra)}
			})
		}
		begin := time.Now()
		connector, err := b.open(ctx, w, c, gate(200))
		if err != nil {
			return 0, err
		}
		open = true
		defer closeConnector(connector)
		took, err := crowd(ctx, connector, size, begin)
		requests.Figures[w.name] = Figure{Value: max(requests.Figures[w.name].Value, float64(c.requests.Load()))}
		return quantile(took, 0.99), err
	}
	times := map[string][]float64{}
	ratios, err := b.settle(limit, pick(b.short, 1, 3), func(i int) (float64, error) {
		pair := []way{ways[0], ways[1]}
		for j := range pair {
			w := pair[(i+j)%2]
			t, err := once(w)
			if err != nil {
				return 0, err
			}
			times[w.name] = append(times[w.name], t)
		}
		last := func(name string) float64 { return times[name][len(times[name])-1] }
		return (last(ours) - milliseconds(latency)) / last(floor), nil
	})
	if err != nil {
		return nil, err
	}
	for _, w := range ways[2:] {
		t, err := once(w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		times[w.name] = []float64{t}
	}
	for name, t := range times {
		slow.Figures[name] = Figure{Value: median(t)}
	}
	delete(requests.Figures, floor)
	requests.valueAtMost(1)
	beyond.valueAtMost(1)
	slow.atMost(limit, "static, without the latency", ratios)
	return []*Row{requests, beyond, slow}, nil
}

// crowd connects size times at once. It returns the milliseconds from begin to the
// end of each.
func crowd(ctx context.Context, connector driver.Connector, size int, begin time.Time) ([]float64, error) {
	took, errs := make([]float64, size), make([]error, size)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range size {
		all.Go(func() {
			<-start
			_, errs[i] = connect(ctx, connector)
			took[i] = milliseconds(time.Since(begin))
		})
	}
	close(start)
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}

// gate limits the connections to the server to size at a time.
func gate(size int) func(*pgx.ConnConfig) {
	places := make(chan struct{}, size)
	return func(config *pgx.ConnConfig) {
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			conn, err := dial(ctx, network, addr)
			if err != nil {
				<-places
				return nil, err
			}
			return &gated{Conn: conn, leave: sync.OnceFunc(func() { <-places })}, nil
		}
	}
}

type gated struct {
	net.Conn
	leave func()
}

func (g *gated) Close() error {
	defer g.leave()
	return g.Conn.Close()
}

// goroutines waits until the number of goroutines is stable, because those of the
// server end a moment after their client, and returns it.
func goroutines() int {
	n, same := runtime.NumGoroutine(), 0
	for range 100 {
		time.Sleep(10 * time.Millisecond)
		switch now := runtime.NumGoroutine(); {
		case now != n:
			n, same = now, 0
		case same == 10:
			return n
		default:
			same++
		}
	}
	return n
}

// heapNow returns the bytes of the heap that are in use.
func heapNow() float64 {
	for range 3 { // cleanups of the first collection free more in the next
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
