// Listen: runs jobs from a table, on a single pgx connection with LISTEN.
//
// A connector opens single connections too. They do not end when the token
// expires. If one breaks, for example because the server restarts, the program
// logs in again. It then misses notifications that were sent in between, so each
// connection first reads the table.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

const schema = `create table if not exists jobs (id bigint generated always as identity primary key, task text not null)`

// submit adds a task. Other programs do this.
const submit = `with job as (insert into jobs (task) values ($1)) select pg_notify('jobs', '')`

// listen runs jobs on one connection until it breaks or ctx ends.
func listen(ctx context.Context, connector *entrapg.Connector, do func(task string)) error {
	opened, err := connector.Connect(ctx)
	if err != nil {
		return err
	}
	defer opened.Close()
	conn := opened.(*stdlib.Conn).Conn() // the *pgx.Conn
	for _, command := range []string{schema, "listen jobs"} {
		if _, err := conn.Exec(ctx, command); err != nil {
			return err
		}
	}
	for {
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return work(ctx, tx, do) }); err != nil {
			return err
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// work runs the waiting jobs. A job whose transaction fails runs again.
func work(ctx context.Context, tx pgx.Tx, do func(task string)) error {
	rows, err := tx.Query(ctx, "delete from jobs returning task")
	if err != nil {
		return err
	}
	tasks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, task := range tasks {
		do(task)
	}
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	connector := entrapg.NewConnector(os.Getenv("DATABASE_URL"))
	defer connector.Close()
	for ctx.Err() == nil {
		err := listen(ctx, connector, func(task string) { fmt.Println("doing", task) })
		log.Print(err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}
