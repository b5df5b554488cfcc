package main

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/XSAM/otelsql"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestTracing_SpansShowLoginsAndQueriesAndNoToken(t *testing.T) {
	azuretest.Run(t, func(t *testing.T, dsn string) func() error {
		spans := tracetest.NewInMemoryExporter()
		pingByName(t, dsn)
		db := open(dsn, trace.NewTracerProvider(trace.WithSyncer(spans)))
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(0) // so that every query logs in
		return func() error {
			spans.Reset()
			if _, err := db.ExecContext(t.Context(), "select 1"); err != nil {
				return err
			}
			seen := map[string]bool{}
			for _, span := range spans.GetSpans() {
				seen[span.Name] = true
				if strings.Contains(fmt.Sprintf("%+v", span), "eyJ") {
					return fmt.Errorf("span %q contains a token", span.Name)
				}
			}
			for _, name := range []string{"sql.connector.connect", "connect", "sql.conn.exec", "SELECT"} {
				if !seen[name] {
					return fmt.Errorf("no span %q among %v", name, seen)
				}
			}
			return nil
		}
	})
}

// pingByName opens the database by the driver's name, in both ways that otelsql has.
func pingByName(t *testing.T, dsn string) {
	t.Helper()
	opened, err := otelsql.Open("entrapg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	name, err := otelsql.Register("entrapg")
	if err != nil {
		t.Fatal(err)
	}
	registered, err := sql.Open(name, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer registered.Close()
	for _, db := range []*sql.DB{opened, registered} {
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
