// Ent: entities and migrations over a *sql.DB that entrapg opened.
//
// The code in folder ent is generated from ent/schema. Ent's own Open takes the
// dialect from the driver's name; OpenDB is told it.
package main

//go:generate go tool -modfile=../tools/go.mod ent generate ./ent/schema

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/ent/ent"
	"github.com/entrapg/entrapg/examples/ent/ent/order"
)

func open(dsn string) (*ent.Client, *sql.DB) {
	pool := sql.OpenDB(entrapg.NewConnector(dsn))
	return ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, pool))), pool
}

// place places an order and tells how many there are for the same item.
func place(ctx context.Context, client *ent.Client, item string, quantity int) (int, error) {
	if err := client.Order.Create().SetItem(item).SetQuantity(quantity).Exec(ctx); err != nil {
		return 0, err
	}
	return client.Order.Query().Where(order.Item(item)).Count(ctx)
}

func main() {
	ctx := context.Background()
	client, _ := open(os.Getenv("DATABASE_URL"))
	defer client.Close() // the pool too
	if err := client.Schema.Create(ctx); err != nil {
		log.Fatal(err)
	}
	count, err := place(ctx, client, "tea", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "orders for tea")
}
