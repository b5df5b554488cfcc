package main

import (
	"fmt"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestGoose_MigratesUpAndDownWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db := open(dsn)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every statement outside a transaction logs in
		provider, err := migrations(db)
		if err != nil {
			t.Fatal(err)
		}
		return func() error {
			up, err := provider.Up(t.Context())
			if err != nil {
				return err
			}
			down, err := provider.DownTo(t.Context(), 0)
			if err == nil && (len(up) != 2 || len(down) != 2) {
				err = fmt.Errorf("%d migrations went up and %d down", len(up), len(down))
			}
			return err
		}
	})
}
