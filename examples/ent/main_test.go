package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestEnt_SavesOrdersWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		driver := open(dsn)
		t.Cleanup(func() { driver.Close() })
		driver.DB().SetMaxIdleConns(0) // so that every query logs in
		if err := migrate(t.Context(), driver); err != nil {
			t.Fatal(err)
		}
		placed := 0
		return func() error {
			count, err := place(t.Context(), driver, "tea", 2)
			if placed++; err == nil && count != placed {
				err = fmt.Errorf("%d orders were placed and %d counted", placed, count)
			}
			return err
		}
	})
}
