// Golang-migrate: migrations from files in the program.
//
// The migrate command and migrate.New accept only URLs of their own drivers.
// NewWithInstance accepts a *sql.DB through WithInstance.
package main

import (
	"database/sql"
	"embed"
	"errors"
	"log"
	"os"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/entrapg/entrapg"
)

//go:embed migrations
var files embed.FS

// migrations opens a database to migrate. Close closes the database too.
func migrations(dsn string) (*migrate.Migrate, error) {
	source, err := iofs.New(files, "migrations")
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(entrapg.NewConnector(dsn))
	database, err := pgx.WithInstance(db, &pgx.Config{})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return migrate.NewWithInstance("iofs", source, "pgx5", database)
}

func main() {
	m, err := migrations(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	if err := m.Up(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		log.Fatal(err)
	}
}
