package main

import (
	"database/sql"
	"fmt"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestOtelmetrics_MetricsFollowLogins(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		connector := entrapg.NewConnector(dsn)
		db := sql.OpenDB(connector)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		reader := sdk.NewManualReader()
		if err := register(sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("shop"), db, connector.Stats); err != nil {
			t.Fatal(err)
		}
		logins := int64(0)
		return func() error {
			if err := db.PingContext(t.Context()); err != nil {
				return err
			}
			logins++
			var seen metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &seen); err != nil {
				return err
			}
			names := map[string]bool{}
			for _, m := range seen.ScopeMetrics[0].Metrics {
				names[m.Name] = true
				if m.Name == "entrapg.logins" {
					if got := m.Data.(metricdata.Sum[int64]).DataPoints[0].Value; got != logins {
						return fmt.Errorf("%d logins, and the metric is %d", logins, got)
					}
				}
			}
			if len(names) != 7 || !names["entrapg.logins"] || !names["db.client.connection.count"] {
				return fmt.Errorf("the metrics are %v", names)
			}
			return nil
		}
	})
}
