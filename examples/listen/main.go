// Listen: jobs from a table, told of by LISTEN and NOTIFY, on a plain pgx connection.
//
// A connector opens single connections too, and a token's expiry does not end
// them. What does end one, such as the server's maintenance, is met by a new
// login. Notifications of the time between are lost, so each connection begins
// by looking at the table.
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

// submit is what other programs do, with a task.
const submit = `with job as (insert into jobs (task) values ($1)) select pg_notify('jobs', '')`

// listen does the jobs of one connection, until it breaks or ctx ends.
func listen(ctx context.Context, connector *entrapg.Connector, do func(task string)) error {
	opened, err := connector.Connect(ctx)
	if err != nil {
		return err
	}
	defer opened.Close()
	conn := opened.(*stdlib.Conn).Conn() // pgx's own
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

// work does the jobs at hand; one whose transaction breaks is done again.
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
