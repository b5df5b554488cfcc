// Prometheus: Stats as metrics, next to those of the pool.
//
// An OpenTelemetry collector exports the metrics of example otelmetrics under the
// same names. Alert on token failures that continue, on rejected logins, and on an
// expiry in the past while the program logs in.
package main

import (
	"database/sql"
	"log"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/entrapg/entrapg"
)

func register(registry *prometheus.Registry, db *sql.DB, stats func() entrapg.Stats) {
	labels := prometheus.Labels{"db_system_name": "postgresql"}
	counter := func(name, help string, value func(entrapg.Stats) int64) {
		registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value(stats())) }))
	}
	counter("entrapg_logins_total", "Connections opened.",
		func(s entrapg.Stats) int64 { return s.Logins })
	counter("entrapg_logins_rejected_total", "Logins that the server rejected.",
		func(s entrapg.Stats) int64 { return s.LoginsRejected })
	counter("entrapg_login_retries_total", "Second attempts, with another token.",
		func(s entrapg.Stats) int64 { return s.LoginRetries })
	counter("entrapg_token_requests_total", "Requests for a token.",
		func(s entrapg.Stats) int64 { return s.TokenRequests })
	counter("entrapg_token_failures_total", "Requests that returned no token.",
		func(s entrapg.Stats) int64 { return s.TokenFailures })
	registry.MustRegister(
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{
				Name: "entrapg_token_expiry_timestamp_seconds", ConstLabels: labels,
				Help: "When the current token expires, as Unix time; 0 if there is none.",
			},
			func() float64 { return float64(max(0, stats().TokenExpiry.Unix())) }),
		collectors.NewDBStatsCollector(db, "shop"))
}

func main() {
	connector := entrapg.NewConnector(os.Getenv("DATABASE_URL"))
	db := sql.OpenDB(connector)
	defer db.Close()
	registry := prometheus.NewRegistry()
	register(registry, db, connector.Stats)
	if err := db.Ping(); err != nil {
		log.Print(err)
	}
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
