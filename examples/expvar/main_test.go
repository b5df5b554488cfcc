package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestExpvar_MetricsAndLogFollowLogins(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		var log bytes.Buffer
		db, connector := open(dsn, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		t.Cleanup(func() {
			db.Close()
			records := log.String()
			if strings.Contains(records, "eyJ") {
				t.Errorf("the log contains a token:\n%s", records)
			}
			if asked := connector.Stats().TokenRequests > 0; asked != strings.Contains(records, "level=DEBUG") {
				t.Errorf("the log does not contain the new tokens:\n%s", records)
			}
		})
		db.SetMaxIdleConns(0) // so that every query logs in
		logins := int64(0)
		return func() error {
			if err := db.PingContext(t.Context()); err != nil {
				return err
			}
			logins++
			if got := metrics(db, connector)["entrapg.logins"]; got != logins {
				return fmt.Errorf("%d logins, and the metric is %v", logins, got)
			}
			return nil
		}
	})
}
