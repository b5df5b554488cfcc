package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestPgxpool_OpensConnectionsWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		pool, err := open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		if err := setUp(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		placed := 0
		return func() error {
			pool.Reset() // so that the next query logs in
			count, err := place(t.Context(), pool, "tea", 2)
			if placed++; err == nil && count != placed {
				err = fmt.Errorf("%d orders were placed and %d counted", placed, count)
			}
			return err
		}
	})
}
