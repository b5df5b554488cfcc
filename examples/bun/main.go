// Bun: a query builder over a *sql.DB that entrapg opened.
//
// Bun writes values into its queries itself, so the program sets an exec mode in
// which pgx does not prepare them.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/entrapg/entrapg"
)

type Order struct {
	ID       int64 `bun:",pk,autoincrement"`
	Item     string
	Quantity int
}

func open(dsn string) *bun.DB {
	connector := entrapg.NewConnector(dsn, entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}))
	return bun.NewDB(sql.OpenDB(connector), pgdialect.New())
}

func setUp(ctx context.Context, db *bun.DB) error {
	_, err := db.NewCreateTable().Model((*Order)(nil)).IfNotExists().Exec(ctx)
	return err
}

// place places an order and returns how many there are for the same item.
func place(ctx context.Context, db *bun.DB, item string, quantity int) (int64, error) {
	if _, err := db.NewInsert().Model(&Order{Item: item, Quantity: quantity}).Exec(ctx); err != nil {
		return 0, err
	}
	return db.NewSelect().Model((*Order)(nil)).Where("item = ?", item).Count(ctx)
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
