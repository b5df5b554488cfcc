package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// A ledger is an append-only table and its writers.
type ledger struct {
	table   string
	writers []*writer
}

// A writer appends the numbers 1, 2, 3 and so on, each in its own transaction.
type writer struct {
	pool   string
	worker int

	mu        sync.Mutex // guards the fields below
	tried     int64      // the last number sent
	last      int64      // the last number that the server acknowledged
	committed int64      // how many numbers it acknowledged
	unknown   []int64    // numbers whose outcome is unknown
}

func newLedger(ctx context.Context, adminDSN, table string, workers int, pools ...string) (*ledger, error) {
	admin, err := pgx.Connect(ctx, adminDSN)
	if err != nil {
		return nil, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	name := pgx.Identifier{table}.Sanitize()
	if _, err := admin.Exec(ctx, fmt.Sprintf(`
		create table %[1]s (pool text, worker int, n bigint, primary key (pool, worker, n));
		grant select, insert on %[1]s to public`, name)); err != nil {
		return nil, err
	}
	l := &ledger{table: name}
	for _, pool := range pools {
		for worker := range workers {
			l.writers = append(l.writers, &writer{pool: pool, worker: worker})
		}
	}
	return l, nil
}

func (l *ledger) insert() string {
	return "insert into " + l.table + " (pool, worker, n) values ($1, $2, $3)"
}

func (l *ledger) max() string {
	return "select coalesce(max(n), 0) from " + l.table + " where pool = $1 and worker = $2"
}

// next returns the number to append.
func (w *writer) next() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried++
	return w.tried
}

// record records the outcome of n.
func (w *writer) record(n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.unknown = append(w.unknown, n)
		return
	}
	w.last = n
	w.committed++
}

func (w *writer) acknowledged() (last, committed int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.committed
}

// counts are the numbers of rows that were acknowledged as committed, that are in the
// table, and that were acknowledged but are not in the table.
type counts struct{ committed, found, lost int64 }

// audit compares the table with the acknowledgments. The writers must have stopped.
func (l *ledger) audit(ctx context.Context, adminDSN string) (counts, error) {
	var c counts
	admin, err := pgx.Connect(ctx, adminDSN)
	if err != nil {
		return c, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	for _, w := range l.writers {
		rows, err := admin.Query(ctx,
			"select n from "+l.table+" where pool = $1 and worker = $2 order by n", w.pool, w.worker)
		if err != nil {
			return c, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return c, err
		}
		c.found += int64(len(found))
		c.committed += w.committed
		for n := int64(1); n <= w.tried; n++ {
			if _, ok := slices.BinarySearch(found, n); ok {
				continue
			}
			if _, unknown := slices.BinarySearch(w.unknown, n); !unknown {
				c.lost++
			}
		}
	}
	return c, nil
}
