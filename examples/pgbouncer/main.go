// Pgbouncer: a program that also works through PgBouncer in transaction mode.
//
// Each transaction may run on another of PgBouncer's connections, which does not
// have the statements that pgx has prepared. The program therefore sets an exec
// mode without named statements; default_query_exec_mode=exec in the DSN does the
// same. On Azure, PgBouncer listens on port 6432 of the server.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
)

func open(dsn string) *sql.DB {
	return sql.OpenDB(entrapg.NewConnector(dsn, entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	})))
}

func setUp(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `create table if not exists orders (
		id bigint generated always as identity primary key, item text not null, quantity int not null)`)
	return err
}

// place places an order and returns how many there are for the same item. It uses
// one transaction, because PgBouncer may use another connection for the next one,
// with other settings and temporary tables.
func place(ctx context.Context, db *sql.DB, item string, quantity int) (count int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "set local statement_timeout = '5s'"); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, "insert into orders (item, quantity) values ($1, $2)", item, quantity); err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, "select count(*) from orders where item = $1", item).Scan(&count); err != nil {
		return 0, err
	}
	return count, tx.Commit()
}

func main() {
	ctx := context.Background()
	db := open(os.Getenv("DATABASE_URL"))
	defer db.Close()
	if err := setUp(ctx, db); err != nil {
		log.Fatal(err)
	}
	count, err := place(ctx, db, "tea", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "orders for tea")
}
