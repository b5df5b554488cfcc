// Expvar: Stats and the log, with the standard library only.
//
// The metrics are those of the examples prometheus and otelmetrics. entrapg logs
// warnings about failures that it does not return as an error, and a debug record
// for each new token. No record contains a token.
package main

import (
	"database/sql"
	"expvar"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/entrapg/entrapg"
)

func open(dsn string, logger *slog.Logger) (*sql.DB, *entrapg.Connector) {
	connector := entrapg.NewConnector(dsn, entrapg.WithLogger(logger))
	return sql.OpenDB(connector), connector
}

// metrics returns the values that /debug/vars shows.
func metrics(db *sql.DB, connector *entrapg.Connector) map[string]any {
	pool, stats := db.Stats(), connector.Stats()
	return map[string]any{
		"db.client.connection.idle":      pool.Idle,
		"db.client.connection.used":      pool.InUse,
		"entrapg.logins":                 stats.Logins,
		"entrapg.logins.rejected":        stats.LoginsRejected,
		"entrapg.login.retries":          stats.LoginRetries,
		"entrapg.token.requests":         stats.TokenRequests,
		"entrapg.token.failures":         stats.TokenFailures,
		"entrapg.token.expiry.timestamp": stats.TokenExpiry,
		"entrapg.user":                   stats.User,
	}
}

func main() {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db, connector := open(os.Getenv("DATABASE_URL"), logger)
	defer db.Close()
	expvar.Publish("database", expvar.Func(func() any { return metrics(db, connector) }))
	if err := db.Ping(); err != nil {
		log.Print(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", nil)) // http://localhost:8080/debug/vars
}
