package main

import (
	"fmt"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

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
		migrate(t, dsn)
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

// migrate does with the driver's name, as GORM's dialect takes that too.
func migrate(t *testing.T, dsn string) {
	t.Helper()
	db, err := gorm.Open(postgres.New(postgres.Config{DriverName: "entrapg", DSN: dsn}))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := db.AutoMigrate(&Order{}); err != nil {
		t.Fatal(err)
	}
}
