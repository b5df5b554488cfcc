// Tracing: OpenTelemetry spans of queries and logins.
//
// otelsql traces the calls of database/sql, including the wait for a login.
// otelpgx is a tracer of pgx: it traces the messages to the server, and is the
// only choice for a pgxpool. This program uses both; most need one. No span
// contains a token.
package main

import (
	"context"
	"database/sql"
	"log"
	"os"

	"github.com/XSAM/otelsql"
	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/entrapg/entrapg"
)

func open(dsn string, provider *trace.TracerProvider) *sql.DB {
	connector := entrapg.NewConnector(dsn, entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(provider))
	}))
	return otelsql.OpenDB(connector,
		otelsql.WithTracerProvider(provider), otelsql.WithAttributes(semconv.DBSystemNamePostgreSQL))
}

func main() {
	ctx := context.Background()
	exporter, err := stdouttrace.New(stdouttrace.WithPrettyPrint())
	if err != nil {
		log.Fatal(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	defer provider.Shutdown(ctx)

	db := open(os.Getenv("DATABASE_URL"), provider)
	defer db.Close()
	if err := db.PingContext(ctx); err != nil {
		log.Print(err)
	}
}
