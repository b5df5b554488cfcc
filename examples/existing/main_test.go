package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

const show = "select current_setting('application_name'), current_setting('statement_timeout')"

func TestExisting_ConfigurationLogsInWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		file := filepath.Join(t.TempDir(), "shop.json")
		text, err := json.Marshal(map[string]any{"dsn": dsn, "maxConns": 3, "statementTimeout": "7s"})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := load(file)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := openPool(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		if got := pool.Config().MaxConns; got != 3 {
			t.Errorf("MaxConns is %d", got)
		}
		db, err := openDB(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0)
		return func() error {
			pool.Reset() // so that the next query logs in
			var name, timeout string
			if err := pool.QueryRow(t.Context(), show).Scan(&name, &timeout); err != nil {
				return err
			}
			if !strings.HasPrefix(name, "shop on ") || timeout != "7s" {
				return fmt.Errorf("in the pool, application_name is %q and statement_timeout %q", name, timeout)
			}
			if err := db.QueryRowContext(t.Context(), show).Scan(&name, &timeout); err != nil {
				return err
			}
			if timeout != "7s" {
				return fmt.Errorf("in database/sql, statement_timeout is %q", timeout)
			}
			return nil
		}
	})
}
