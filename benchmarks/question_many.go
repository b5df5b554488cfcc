package main

import (
	"context"
	"database/sql/driver"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

var manyConnectors = question{
	name: "1,000 connectors with one credential",
	how: "1,000 connectors, each with a DSN of its own (they differ in application_name), are made with one " +
		"credential that caches nothing, and each logs in once. " +
		"Memory is the heap after garbage collection, for each connector that has not connected, beyond the 1,000 " +
		"pgx.ConnConfig of the same DSNs alone, the median of three rounds. The credential caches there. " +
		"Goroutines are those left after the logins.",
	ask: askManyConnectors,
}

func askManyConnectors(ctx context.Context, b *bench) ([]*Row, error) {
	const limitKiB = 8
	size := pick(b, 1000, 20)
	requests := &Row{Name: "1,000 connectors: requests", Unit: "n", Figures: map[string]Figure{}}
	memory := &Row{Name: "memory of an idle connector", Unit: "KiB", Figures: map[string]Figure{}, Of: "beyond pgx.ConnConfig"}
	idle := &Row{Name: "goroutines of 1,000 connectors", Unit: "n", Figures: map[string]Figure{}}

	beyond := map[string][]float64{}
	for range pick(b, 3, 1) {
		alone, err := configHeap(numbered(b.place(ways[0], nil, nil), size))
		if err != nil {
			return nil, err
		}
		for _, w := range ways {
			used, err := connectorHeap(ctx, w, numbered(b.place(w, b.clientSecret(0), nil), size))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			beyond[w.name] = append(beyond[w.name], (used-alone)/float64(size)/1024)
		}
	}
	for _, w := range ways {
		memory.Figures[w.name] = Figure{Value: median(beyond[w.name])}

		c := b.managedIdentity(0)
		base := goroutines()
		connectors, err := openAll(ctx, w, numbered(b.place(w, c, nil), size))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		if err := connectAll(ctx, connectors); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		requests.Figures[w.name] = Figure{Value: float64(c.requests.Load())}
		idle.Figures[w.name] = Figure{Value: float64(max(0, goroutines()-base))}
		for _, c := range connectors {
			closeConnector(c)
		}
	}
	delete(requests.Figures, floor)
	requests.valueAtMost(1)
	memory.valueAtMost(limitKiB)
	idle.valueAtMost(0)
	return []*Row{requests, memory, idle}, nil
}

// numbered gives copies of a place DSNs of their own.
func numbered(to place, size int) []place {
	places := make([]place, size)
	for i := range places {
		places[i] = to
		places[i].dsn += "&application_name=tenant" + strconv.Itoa(i)
	}
	return places
}

func openAll(ctx context.Context, w way, places []place) ([]driver.Connector, error) {
	connectors := make([]driver.Connector, len(places))
	for i, to := range places {
		var err error
		if connectors[i], err = w.open(ctx, to); err != nil {
			return nil, err
		}
	}
	return connectors, nil
}

// configHeap is what the pgx configurations of places alone take.
func configHeap(places []place) (float64, error) {
	configs := make([]*pgx.ConnConfig, len(places))
	before := heapNow()
	for i, to := range places {
		var err error
		if configs[i], err = pgx.ParseConfig(to.dsn); err != nil {
			return 0, err
		}
	}
	grown := heapNow() - before
	runtime.KeepAlive(configs)
	runtime.KeepAlive(places)
	return grown, nil
}

// connectorHeap is what connectors for places take.
func connectorHeap(ctx context.Context, w way, places []place) (float64, error) {
	before := heapNow()
	connectors, err := openAll(ctx, w, places)
	if err != nil {
		return 0, err
	}
	grown := heapNow() - before
	for _, c := range connectors {
		closeConnector(c)
	}
	runtime.KeepAlive(places)
	return grown, nil
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

func heapNow() float64 {
	for range 3 { // finalizers and cleanups of the first free more in the next
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// goroutines counts those that stay: the server's end a moment after their client.
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
