// Ent: migrations and queries over a *sql.DB that entrapg opened.
//
// A client that ent generated takes the same driver:
//
//	client := ent.NewClient(ent.Driver(driver))
//
// Ent's own Open does not work, because it uses the name of the database/sql
// driver as dialect.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/schema/field"

	"github.com/entrapg/entrapg"
)

func open(dsn string) *entsql.Driver {
	return entsql.OpenDB(dialect.Postgres, sql.OpenDB(entrapg.NewConnector(dsn)))
}

// migrate creates the table as a generated client's Schema.Create does.
func migrate(ctx context.Context, driver *entsql.Driver) error {
	id := &schema.Column{Name: "id", Type: field.TypeInt, Increment: true}
	m, err := schema.NewMigrate(driver)
	if err != nil {
		return err
	}
	return m.Create(ctx, &schema.Table{
		Name: "orders",
		Columns: []*schema.Column{
			id,
			{Name: "item", Type: field.TypeString},
			{Name: "quantity", Type: field.TypeInt},
		},
		PrimaryKey: []*schema.Column{id},
	})
}

// place places an order and returns how many there are for the same item.
func place(ctx context.Context, driver *entsql.Driver, item string, quantity int) (int, error) {
	build := entsql.Dialect(dialect.Postgres)
	query, args := build.Insert("orders").Columns("item", "quantity").Values(item, quantity).Query()
	if err := driver.Exec(ctx, query, args, nil); err != nil {
		return 0, err
	}
	query, args = build.Select(entsql.Count("*")).From(build.Table("orders")).Where(entsql.EQ("item", item)).Query()
	rows := &entsql.Rows{}
	if err := driver.Query(ctx, query, args, rows); err != nil {
		return 0, err
	}
	defer rows.Close()
	return entsql.ScanInt(rows)
}

func main() {
	ctx := context.Background()
	driver := open(os.Getenv("DATABASE_URL"))
	defer driver.Close() // the pool too
	if err := migrate(ctx, driver); err != nil {
		log.Fatal(err)
	}
	count, err := place(ctx, driver, "tea", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "orders for tea")
}
