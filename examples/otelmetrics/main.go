// Otelmetrics: Stats as OpenTelemetry metrics, next to those of the pool.
//
// Names and attributes follow OpenTelemetry's semantic conventions for databases.
// The conventions have no names for logins and tokens, so those metrics begin with
// entrapg.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os"

	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/entrapg/entrapg"
)

func register(meter metric.Meter, db *sql.DB, stats func() entrapg.Stats) error {
	system := semconv.DBSystemNamePostgreSQL
	pool := semconv.DBClientConnectionPoolName("shop")
	idle := metric.WithAttributes(system, pool, semconv.DBClientConnectionStateIdle)
	used := metric.WithAttributes(system, pool, semconv.DBClientConnectionStateUsed)

	var failed []error
	counter := func(name, unit string, value func(entrapg.Stats) int64) {
		_, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(value(stats()), metric.WithAttributes(system))
				return nil
			}))
		failed = append(failed, err)
	}
	counter("entrapg.logins", "{login}", func(s entrapg.Stats) int64 { return s.Logins })
	counter("entrapg.logins.rejected", "{login}", func(s entrapg.Stats) int64 { return s.LoginsRejected })
	counter("entrapg.login.retries", "{login}", func(s entrapg.Stats) int64 { return s.LoginRetries })
	counter("entrapg.token.requests", "{request}", func(s entrapg.Stats) int64 { return s.TokenRequests })
	counter("entrapg.token.failures", "{request}", func(s entrapg.Stats) int64 { return s.TokenFailures })
	_, err := meter.Int64ObservableGauge("entrapg.token.expiry.timestamp", metric.WithUnit("s"),
		metric.WithDescription("When the current token expires, as Unix time; 0 if there is none"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(max(0, stats().TokenExpiry.Unix()), metric.WithAttributes(system))
			return nil
		}))
	failed = append(failed, err)
	_, err = meter.Int64ObservableUpDownCounter("db.client.connection.count", metric.WithUnit("{connection}"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			now := db.Stats()
			o.Observe(int64(now.Idle), idle)
			o.Observe(int64(now.InUse), used)
			return nil
		}))
	return errors.Join(append(failed, err)...)
}

func main() {
	ctx := context.Background()
	connector := entrapg.NewConnector(os.Getenv("DATABASE_URL"))
	db := sql.OpenDB(connector)
	defer db.Close()
	exporter, err := stdoutmetric.New(stdoutmetric.WithPrettyPrint())
	if err != nil {
		log.Fatal(err)
	}
	provider := sdk.NewMeterProvider(sdk.WithReader(sdk.NewPeriodicReader(exporter)))
	defer provider.Shutdown(ctx)
	if err := register(provider.Meter("shop"), db, connector.Stats); err != nil {
		log.Fatal(err)
	}
	if err := db.PingContext(ctx); err != nil {
		log.Print(err)
	}
}
