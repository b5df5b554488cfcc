package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
)

const (
	sqlDB   = "sql.DB"
	pgxPool = "pgxpool"

	conns    = 8                      // of each pool
	lifetime = 300 * time.Millisecond // of a connection: about fifty logins a second
	patience = time.Minute            // for a query

	connectTimeout = 6 * time.Second // longer than a login on a busy machine
)

// The workers of each pool, and the time between two queries of a worker. Tests set
// fewer workers and a longer time.
var (
	workers = 32
	pause   = 50 * time.Millisecond
)

// A load is two pools of one identity, with workers that write to a ledger and
// read it.
type load struct {
	connector *entrapg.Connector
	db        *sql.DB
	pool      *pgxpool.Pool
	ledger    *ledger
	checker   *checker
	connects  *stopwatch

	running sync.WaitGroup
	stop    context.CancelFunc
}

// startLoad starts the workers. adminDSN is the DSN of the server with the ledger.
func startLoad(
	ctx context.Context, checks *checker, dsn, adminDSN, table string,
	credential azcore.TokenCredential, opts ...entrapg.Option,
) (_ *load, err error) {
	l := &load{checker: checks, connects: &stopwatch{taken: map[string]int64{}}}
	if l.ledger, err = newLedger(ctx, adminDSN, table, workers, sqlDB, pgxPool); err != nil {
		return nil, err
	}
	opts = append(opts, entrapg.WithCredential(credential), entrapg.WithLogger(nil))

	l.connector = entrapg.NewConnector(dsn, opts...)
	l.db = sql.OpenDB(timedConnector{l.connector, l.connects})
	l.db.SetMaxOpenConns(conns)
	l.db.SetMaxIdleConns(conns)
	l.db.SetConnMaxLifetime(lifetime)

	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	defer func() {
		if err != nil {
			l.db.Close()
		}
	}()
	config, err := entrapg.PoolConfig(fmt.Sprintf("%s%spool_max_conns=%d&pool_max_conn_lifetime=%v",
		dsn, sep, conns, lifetime), opts...)
	if err != nil {
		return nil, err
	}
	timePool(config, l.connects)
	if l.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}

	ctx, l.stop = context.WithCancel(ctx)
	l.running.Go(func() { checks.watch(ctx) })
	for _, w := range l.ledger.writers {
		client := client(sqlClient{l.db})
		if w.pool == pgxPool {
			client = pgxClient{l.pool}
		}
		l.running.Go(func() { l.work(ctx, w, client) })
	}
	return l, nil
}

// stopWorkers stops the workers, each after its current query.
func (l *load) stopWorkers() {
	l.stop()
	l.running.Wait()
}

// close stops the workers and closes the pools.
func (l *load) close() {
	l.stopWorkers()
	l.db.Close()
	l.pool.Close()
}

// work writes a number, sometimes reads the highest one, and pauses.
func (l *load) work(ctx context.Context, w *writer, c client) {
	for ctx.Err() == nil {
		n := w.next()
		err := l.query(ctx, w.pool,
			func(ctx context.Context) error { return c.exec(ctx, l.ledger.insert(), w.pool, w.worker, n) })
		w.record(n, err)
		if n%4 == 0 {
			last, _ := w.acknowledged()
			var highest int64
			err := l.query(ctx, w.pool,
				func(ctx context.Context) error { return c.one(ctx, &highest, l.ledger.max(), w.pool, w.worker) })
			if err == nil && highest < last {
				l.checker.addViolation("%s: worker %d reads %d, though %d was committed", w.pool, w.worker, highest, last)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// query runs one query to its end, even if the workers are being stopped.
func (l *load) query(ctx context.Context, pool string, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	started := time.Now()
	err := run(ctx)
	if err != nil {
		l.checker.record(pool, started, err)
	}
	return err
}

// A client runs the workers' queries on a pool.
type client interface {
	exec(ctx context.Context, query string, args ...any) error
	one(ctx context.Context, into *int64, query string, args ...any) error
}

type sqlClient struct{ db *sql.DB }

func (c sqlClient) exec(ctx context.Context, query string, args ...any) error {
	_, err := c.db.ExecContext(ctx, query, args...)
	return err
}

func (c sqlClient) one(ctx context.Context, into *int64, query string, args ...any) error {
	return c.db.QueryRowContext(ctx, query, args...).Scan(into)
}

type pgxClient struct{ pool *pgxpool.Pool }

func (c pgxClient) exec(ctx context.Context, query string, args ...any) error {
	_, err := c.pool.Exec(ctx, query, args...)
	return err
}

func (c pgxClient) one(ctx context.Context, into *int64, query string, args ...any) error {
	return c.pool.QueryRow(ctx, query, args...).Scan(into)
}

// A stopwatch times connects, including the wait for a token.
type stopwatch struct {
	mu      sync.Mutex
	taken   map[string]int64 // the number that succeeded, by pool
	slowest time.Duration    // including failed ones, except for pgxpool
	lap     time.Duration    // the slowest since newLap
}

func (s *stopwatch) time(pool string, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.taken[pool]++
	}
	s.slowest, s.lap = max(s.slowest, took), max(s.lap, took)
}

func (s *stopwatch) newLap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lap = 0
}

// slowestOfLap returns the slowest connect since newLap.
func (s *stopwatch) slowestOfLap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lap
}

func (s *stopwatch) count(pool string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[pool]
}

func (s *stopwatch) max() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowest
}

type timedConnector struct {
	*entrapg.Connector
	watch *stopwatch
}

func (c timedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	start := time.Now()
	conn, err := c.Connector.Connect(ctx)
	c.watch.time(sqlDB, time.Since(start), err)
	return conn, err
}

// timePool times the connects of a pgxpool by its hooks.
func timePool(config *pgxpool.Config, watch *stopwatch) {
	before := config.BeforeConnect
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		start := time.Now()
		if err := before(ctx, c); err != nil {
			watch.time(pgxPool, time.Since(start), err)
			return err
		}
		after := c.AfterConnect
		c.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			err := after(ctx, conn)
			watch.time(pgxPool, time.Since(start), err)
			return err
		}
		return nil
	}
}
