// Sqlc: Go code generated from SQL, in package shop.
//
// The generated code accepts any *sql.DB. With sql_package: pgx/v5, it accepts a
// pool made from entrapg.PoolConfig.
package main

//go:generate go tool -modfile=../tools/go.mod sqlc generate

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"log"
	"os"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/sqlc/shop"
)

//go:embed schema.sql
var schema string

func open(dsn string) *sql.DB { return sql.OpenDB(entrapg.NewConnector(dsn)) }

func setUp(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, schema)
	return err
}

// place places an order and returns how many there are for the same item.
func place(ctx context.Context, db *sql.DB, item string, quantity int32) (int64, error) {
	queries := shop.New(db)
	order, err := queries.PlaceOrder(ctx, shop.PlaceOrderParams{Item: item, Quantity: quantity})
	if err != nil {
		return 0, err
	}
	return queries.CountOrders(ctx, order.Item)
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
