package main

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestTypes_AreRegisteredWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		migrations := sql.OpenDB(entrapg.NewConnector(dsn))
		t.Cleanup(func() { migrations.Close() })
		if _, err := migrations.ExecContext(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		db := openDB(dsn)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		pool, err := openPool(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return func() error {
			c, err := cents(t.Context(), db, price{"EUR", 250})
			if err != nil {
				return err
			}
			pool.Reset() // so that the next query logs in
			p, err := double(t.Context(), pool, price{"EUR", c})
			if err == nil && p != (price{"EUR", 500}) {
				err = fmt.Errorf("twice 2.50 EUR is %+v", p)
			}
			return err
		}
	})
}
