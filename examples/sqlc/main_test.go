package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestSqlc_RunsQueriesWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db := open(dsn)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		if err := setUp(t.Context(), db); err != nil {
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
