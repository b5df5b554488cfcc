package entrapg_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/entrapg/entrapg"
)

func TestDriver_OpenReportsInvalidDSN(t *testing.T) {
	var config *entrapg.ConfigError
	if db, err := sql.Open("entrapg", "host=db.example.com sslmode=prefer"); !errors.As(err, &config) ||
		config.Setting != "sslmode" {
		t.Errorf("got %v and %v, want a ConfigError for sslmode", db, err)
	}
}

// Libraries that wrap drivers open them this way.
func TestDriver_OpensByNameAndAppliesRules(t *testing.T) {
	t.Setenv("PGHOST", "db.example.com")
	t.Setenv("PGSSLMODE", "prefer")
	db, err := sql.Open("entrapg", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var config *entrapg.ConfigError
	if err := db.PingContext(t.Context()); !errors.As(err, &config) || config.Setting != "sslmode" {
		t.Errorf("Ping: %v", err)
	}

	t.Setenv("PGSSLMODE", "")
	found := db.Driver()
	_, err = found.(driver.DriverContext).OpenConnector("host=db.example.com sslmode=prefer")
	if !errors.As(err, &config) {
		t.Errorf("OpenConnector with an invalid DSN: %v", err)
	}
	connector, err := found.(driver.DriverContext).OpenConnector("host=db.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := connector.(*entrapg.Connector); !ok {
		t.Errorf("the connector is a %T", connector)
	}
	if _, err := found.Open("host=db.example.com password=secret"); !errors.As(err, &config) ||
		config.Setting != "password" {
		t.Errorf("Open: %v", err)
	}
}
