package main

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestPrometheus_MetricsFollowLogins(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		connector := entrapg.NewConnector(dsn)
		db := sql.OpenDB(connector)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		registry := prometheus.NewPedanticRegistry()
		register(registry, db, connector.Stats)
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("Prometheus's conventions: %v, %v", problems, err)
		}
		logins := float64(0)
		return func() error {
			if err := db.PingContext(t.Context()); err != nil {
				return err
			}
			logins++
			families, err := registry.Gather()
			if err != nil {
				return err
			}
			for _, family := range families {
				if family.GetName() == "entrapg_logins_total" {
					if got := family.GetMetric()[0].GetCounter().GetValue(); got != logins {
						return fmt.Errorf("%v logins, and the metric is %v", logins, got)
					}
					return nil
				}
			}
			return fmt.Errorf("no metric of logins among %d", len(families))
		}
	})
}
