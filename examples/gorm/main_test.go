package main

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestGORM_SavesModelsWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db, pool, err := open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		if err := db.AutoMigrate(&Order{}); err != nil {
			t.Fatal(err)
		}
		pool.SetMaxIdleConns(0) // so that every query logs in
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

// Later versions of Order, for migrations.
type (
	orderWithNote struct {
		Order
		Note string
	}
	orderWithState struct {
		orderWithNote
		Paid bool
	}
)

func (orderWithNote) TableName() string  { return "orders" }
func (orderWithState) TableName() string { return "orders" }

// migrate migrates an empty database through three versions, and then drops the
// table.
func migrate(db *gorm.DB) error {
	defer db.Migrator().DropTable(&Order{})
	for i, version := range []any{&Order{}, &orderWithNote{}, &orderWithState{}, &orderWithState{}} {
		if err := db.AutoMigrate(version); err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	return nil
}

// TestGORM_MigratesAgainAfterSchemaChange checks the table in docs/libraries.md.
func TestGORM_MigratesAgainAfterSchemaChange(t *testing.T) {
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dsn := server.AdminDSN() + " entra_credential=none"
	named := func(dsn string) (*gorm.DB, *sql.DB, error) {
		db, err := gorm.Open(postgres.New(postgres.Config{DriverName: "entrapg", DSN: dsn}),
			&gorm.Config{Logger: logger.Discard})
		if err != nil {
			return nil, nil, err
		}
		pool, err := db.DB()
		return db, pool, err
	}
	for _, test := range []struct {
		name string
		open func(string) (*gorm.DB, *sql.DB, error)
		dsn  string
		code string // SQLSTATE of the error
	}{
		{name: "Conn", open: open, dsn: dsn},
		{name: "DriverName", open: named, dsn: dsn, code: "0A000"},
		{name: "DriverName with an exec mode", open: named, dsn: dsn + " default_query_exec_mode=exec"},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, pool, err := test.open(test.dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			pool.SetMaxOpenConns(1)
			err = migrate(db)
			failed := &pgconn.PgError{}
			if err != nil && !errors.As(err, &failed) || failed.Code != test.code {
				t.Errorf("error %v, want SQLSTATE %q", err, test.code)
			}
		})
	}
}
