// River: a job queue in the database, over a pgxpool.
//
// River's listener keeps a connection open after the token has expired, which the
// server allows, and reconnects if it breaks.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/entrapg/entrapg"
)

type mail struct {
	To string `json:"to"`
}

func (mail) Kind() string { return "mail" }

func open(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := entrapg.PoolConfig(dsn)
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// start migrates River's tables and starts the client.
func start(ctx context.Context, pool *pgxpool.Pool, send func(mail)) (*river.Client[pgx.Tx], error) {
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(_ context.Context, job *river.Job[mail]) error {
		send(job.Args)
		return nil
	}))
	client, err := river.NewClient(driver, &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
		Workers: workers,
	})
	if err != nil {
		return nil, err
	}
	return client, client.Start(ctx)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pool, err := open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client, err := start(ctx, pool, func(m mail) { fmt.Println("mail to", m.To) })
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Insert(ctx, mail{To: "alice@contoso.com"}, nil); err != nil {
		log.Fatal(err)
	}
	<-client.Stopped() // the interrupt stops it
}
