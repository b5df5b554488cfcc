// Goose: migrations from files in the program.
//
// The goose command opens databases itself and does not support Entra. Its provider
// accepts any *sql.DB, so a few lines make a command. The lock keeps instances that
// start together from migrating at the same time.
package main

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log"
	"os"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/entrapg/entrapg"
)

//go:embed migrations
var files embed.FS

func open(dsn string) *sql.DB { return sql.OpenDB(entrapg.NewConnector(dsn)) }

func migrations(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithSessionLocker(locker))
}

func main() {
	db := open(os.Getenv("DATABASE_URL"))
	defer db.Close()
	provider, err := migrations(db)
	if err != nil {
		log.Fatal(err)
	}
	results, err := provider.Up(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range results {
		fmt.Println(result)
	}
}
