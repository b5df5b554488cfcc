package main

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

var manyConnectors = question{
	name: "1,000 connectors with one credential",
	how: "1,000 connectors, each with a DSN of its own (they differ in application_name), are made with one credential that caches nothing, and each logs in once. " +
		"Memory is the heap after garbage collection, for each connector that has not connected, beyond the 1,000 pgx.ConnConfig of the same DSNs alone. " +
		"Goroutines are those left after the logins.",
	ask: askManyConnectors,
}

func askManyConnectors(ctx context.Context, b *bench) ([]*Row, error) {
	const limitKiB = 8
	size := pick(b, 1000, 20)
	requests := &Row{Name: "1,000 connectors: requests", Unit: "n", Figures: map[string]Figure{}}
	memory := &Row{Name: "memory of an idle connector", Unit: "KiB", Figures: map[string]Figure{}, Of: "beyond pgx.ConnConfig"}
	goroutines := &Row{Name: "goroutines of 1,000 connectors", Unit: "n", Figures: map[string]Figure{}}

	configs := make([]*pgx.ConnConfig, size)
	alone := heapOf(func() error {
		for i := range configs {
			config, err := pgx.ParseConfig(numbered(b.place(ways[0], nil, nil), i).dsn)
			if err != nil {
				return err
			}
			configs[i] = config
		}
		return nil
	})
	runtime.KeepAlive(configs)
	if alone.err != nil {
		return nil, alone.err
	}
	for _, w := range ways {
		c := b.managedIdentity(0)
		connectors := make([]driver.Connector, size)
		base := runtime.NumGoroutine()
		used := heapOf(func() (err error) {
			for i := range connectors {
				if connectors[i], err = w.open(ctx, numbered(b.place(w, c, nil), i)); err != nil {
					return err
				}
			}
			return nil
		})
		if used.err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, used.err)
		}
		memory.Figures[w.name] = Figure{Value: (used.bytes - alone.bytes) / float64(size) / 1024}
		if err := connectAll(ctx, connectors); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		requests.Figures[w.name] = Figure{Value: float64(c.requests.Load())}
		goroutines.Figures[w.name] = Figure{Value: float64(goroutinesBeyond(base))}
		for _, c := range connectors {
			closeConnector(c)
		}
	}
	delete(requests.Figures, floor)
	requests.valueAtMost(1)
	memory.valueAtMost(limitKiB)
	goroutines.valueAtMost(0)
	return []*Row{requests, memory, goroutines}, nil
}

// numbered gives a place a DSN of its own.
func numbered(to place, i int) place {
	if u, err := url.Parse(to.dsn); err == nil {
		q := u.Query()
		q.Set("application_name", "tenant"+strconv.Itoa(i))
		u.RawQuery = q.Encode()
		to.dsn = u.String()
	}
	return to
}

// connectAll connects by each, a few at a time.
func connectAll(ctx context.Context, connectors []driver.Connector) error {
	next := make(chan driver.Connector)
	var all sync.WaitGroup
	var mu sync.Mutex
	var failure error
	for range 16 {
		all.Go(func() {
			for c := range next {
				if _, err := connect(ctx, c); err != nil {
					mu.Lock()
					failure = err
					mu.Unlock()
				}
			}
		})
	}
	for _, c := range connectors {
		next <- c
	}
	close(next)
	all.Wait()
	return failure
}

type heap struct {
	bytes float64
	err   error
}

// heapOf tells by how much the heap grows, and stays grown, by build.
func heapOf(build func() error) heap {
	before := heapNow()
	err := build()
	return heap{heapNow() - before, err}
}

func heapNow() float64 {
	for range 3 { // finalizers and cleanups of the first free more in the next
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// goroutinesBeyond counts those that stay: the server's end a moment after their
// client.
func goroutinesBeyond(base int) int {
	beyond := 0
	for range 50 {
		if beyond = max(0, runtime.NumGoroutine()-base); beyond == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return beyond
}
