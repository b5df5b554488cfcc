// Types: registers PostgreSQL types with each new connection.
//
// The same function is an option of pgx's database/sql driver and a hook of
// pgxpool. Register the types of pgvector in the same places.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// schema must exist before the connections that register its types.
const schema = "create type price as (currency text, cents bigint)"

type price struct {
	Currency string
	Cents    int64
}

func registerTypes(ctx context.Context, conn *pgx.Conn) error {
	types, err := conn.LoadTypes(ctx, []string{"price"})
	if err != nil {
		return err
	}
	conn.TypeMap().RegisterTypes(types)
	return nil
}

func openDB(dsn string) *sql.DB {
	return sql.OpenDB(entrapg.NewConnector(dsn, entrapg.WithStdlib(stdlib.OptionAfterConnect(registerTypes))))
}

func openPool(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := entrapg.PoolConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.AfterConnect = registerTypes
	return pgxpool.NewWithConfig(ctx, config)
}

// cents sends a price through database/sql and returns it in cents.
func cents(ctx context.Context, db *sql.DB, p price) (cents int64, err error) {
	err = db.QueryRowContext(ctx, "select ($1::price).cents", p).Scan(&cents)
	return cents, err
}

// double sends a price through a pool and returns twice as much.
func double(ctx context.Context, pool *pgxpool.Pool, p price) (result price, err error) {
	err = pool.QueryRow(ctx, "select row(($1::price).currency, ($1::price).cents * 2)::price", p).Scan(&result)
	return result, err
}

func main() {
	ctx := context.Background()
	dsn := os.Getenv("DATABASE_URL")
	migrations := sql.OpenDB(entrapg.NewConnector(dsn))
	defer migrations.Close()
	if _, err := migrations.ExecContext(ctx, schema); err != nil {
		log.Print(err)
	}
	db := openDB(dsn)
	defer db.Close()
	fmt.Println(cents(ctx, db, price{"EUR", 250}))
}
