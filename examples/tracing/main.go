// Tracing: OpenTelemetry spans of what happens in the database.
//
// Otelsql sees what database/sql does, the wait for a login among it. A tracer of
// pgx, such as otelpgx, sees what goes over the wire; for a pgxpool it is all
// there is. Here are both; one is enough for most. No span has a token in it.
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
