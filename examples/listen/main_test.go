package main

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestListen_RunsEveryJobWhileTokensExpireAndConnectionsBreak(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		db := sql.OpenDB(entrapg.NewConnector(dsn))
		t.Cleanup(func() { db.Close() })
		if _, err := db.ExecContext(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		connector := entrapg.NewConnector(dsn)
		t.Cleanup(func() { connector.Close() })

		ctx, cancel := context.WithCancel(t.Context())
		done, ended := make(chan string, 100), make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				listen(ctx, connector, func(task string) { done <- task })
			}
		}()
		t.Cleanup(func() { cancel(); <-ended })

		count := 0
		job := func() error {
			count++
			task := fmt.Sprint("job ", count)
			if _, err := db.ExecContext(t.Context(), submit, task); err != nil {
				return err
			}
			for limit := time.After(10 * time.Second); ; {
				select {
				case got := <-done:
					if got == task { // not an earlier one
						return nil
					}
				case <-limit:
					return fmt.Errorf("%s was not done", task)
				}
			}
		}
		if err := job(); err != nil { // the program listens
			t.Fatal(err)
		}
		return func() error {
			const breakListener = `select count(pg_terminate_backend(pid)) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`
			if _, err := db.ExecContext(t.Context(), breakListener); err != nil {
				return err
			}
			if err := job(); err != nil { // notified, or found by the next connection
				return err
			}
			return job()
		}
	})
}
