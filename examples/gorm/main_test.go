package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestModelsAreSavedWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db, pool, err := open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		pool.SetMaxIdleConns(0) // so that every query logs in
		if err := db.AutoMigrate(&Order{}); err != nil {
			t.Fatal(err)
		}
		placed := int64(0)
		return func() error {
			count, err := place(t.Context(), db, "tea", 2)
			if placed++; err == nil && count != placed {
				err = fmt.Errorf("%d orders were placed and %d counted", placed, count)
			}
			return err
		}
	})
}
