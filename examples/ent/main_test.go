package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestEntitiesAreSavedWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		client, pool := open(dsn)
		t.Cleanup(func() { client.Close() })
		pool.SetMaxIdleConns(0) // so that every query logs in
		if err := client.Schema.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		placed := 0
		return func() error {
			count, err := place(t.Context(), client, "tea", 2)
			if placed++; err == nil && count != placed {
				err = fmt.Errorf("%d orders were placed and %d counted", placed, count)
			}
			return err
		}
	})
}
