package main

import (
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestSqlx_SavesOrdersWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db := open(dsn)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		setUpByName(t, dsn)
		placed := 1
		return func() error {
			if err := place(t.Context(), db, order{Item: "tea", Quantity: 2}); err != nil {
				return err
			}
			placed++
			orders, err := find(t.Context(), db, "tea", "coffee")
			if err == nil && len(orders) != placed {
				err = fmt.Errorf("%d orders were placed and %d found", placed, len(orders))
			}
			return err
		}
	})
}

// setUpByName opens the database by the driver's name.
func setUpByName(t *testing.T, dsn string) {
	t.Helper()
	sqlx.BindDriver("entrapg", sqlx.DOLLAR)
	db, err := sqlx.ConnectContext(t.Context(), "entrapg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := setUp(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if err := place(t.Context(), db, order{Item: "coffee", Quantity: 1}); err != nil {
		t.Fatal(err)
	}
}
