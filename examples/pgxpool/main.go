// Pgxpool: pgx's own pool, without database/sql.
//
// PoolConfig returns a configuration whose BeforeConnect hook provides the token.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
)

func open(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := entrapg.PoolConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 10 // or pool_max_conns=10 in the DSN
	return pgxpool.NewWithConfig(ctx, config)
}

func setUp(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `create table if not exists orders (
		id bigint generated always as identity primary key, item text not null, quantity int not null)`)
	return err
}

// place places an order and returns how many there are for the same item.
func place(ctx context.Context, pool *pgxpool.Pool, item string, quantity int) (count int, err error) {
	if _, err := pool.Exec(ctx, "insert into orders (item, quantity) values ($1, $2)", item, quantity); err != nil {
		return 0, err
	}
	err = pool.QueryRow(ctx, "select count(*) from orders where item = $1", item).Scan(&count)
	return count, err
}

func main() {
	ctx := context.Background()
	pool, err := open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := setUp(ctx, pool); err != nil {
		log.Fatal(err)
	}
	count, err := place(ctx, pool, "tea", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "orders for tea")
}
