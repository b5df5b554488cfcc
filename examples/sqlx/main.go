// Sqlx: named parameters, structs and lists of values.
//
// sqlx chooses the syntax of parameters by the driver's name. It does not know
// "entrapg", so the program passes "pgx" to NewDb: the connections are pgx's. To
// use sqlx.Connect with a name and a DSN, call once
//
//	sqlx.BindDriver("entrapg", sqlx.DOLLAR)
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/jmoiron/sqlx"

	"github.com/entrapg/entrapg"
)

type order struct {
	ID       int64
	Item     string
	Quantity int
}

func open(dsn string) *sqlx.DB {
	return sqlx.NewDb(sql.OpenDB(entrapg.NewConnector(dsn)), "pgx")
}

func setUp(ctx context.Context, db *sqlx.DB) error {
	_, err := db.ExecContext(ctx, `create table if not exists orders (
		id bigint generated always as identity primary key, item text not null, quantity int not null)`)
	return err
}

func place(ctx context.Context, db *sqlx.DB, o order) error {
	_, err := db.NamedExecContext(ctx, "insert into orders (item, quantity) values (:item, :quantity)", o)
	return err
}

func find(ctx context.Context, db *sqlx.DB, items ...string) (orders []order, err error) {
	query, args, err := sqlx.In("select * from orders where item in (?) order by id", items)
	if err != nil {
		return nil, err
	}
	err = db.SelectContext(ctx, &orders, db.Rebind(query), args...)
	return orders, err
}

func main() {
	ctx := context.Background()
	db := open(os.Getenv("DATABASE_URL"))
	defer db.Close()
	if err := setUp(ctx, db); err != nil {
		log.Fatal(err)
	}
	if err := place(ctx, db, order{Item: "tea", Quantity: 2}); err != nil {
		log.Fatal(err)
	}
	orders, err := find(ctx, db, "tea", "coffee")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", orders)
}
