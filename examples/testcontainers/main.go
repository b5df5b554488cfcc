// Testcontainers: a program whose tests run against PostgreSQL in a container, in
// three ways: with a password, behind entrapgtest, which checks tokens, and in the
// image of the emulator. See the tests.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/entrapg/entrapg"
)

func open(dsn string) *sql.DB { return sql.OpenDB(entrapg.NewConnector(dsn)) }

func whoAmI(ctx context.Context, db *sql.DB) (user string, err error) {
	err = db.QueryRowContext(ctx, "select session_user").Scan(&user)
	return user, err
}

func main() {
	db := open(os.Getenv("DATABASE_URL"))
	defer db.Close()
	user, err := whoAmI(context.Background(), db)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in as", user)
}
