// Libpq: lib/pq, for programs that cannot change to pgx.
//
// A driver.Connector gets the user and a current token from entrapg whenever
// database/sql opens a connection. lib/pq's default sslmode does not verify the
// server, so the connector sets verify-full.
package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log"
	"os"

	"github.com/lib/pq"

	"github.com/entrapg/entrapg"
)

type connector struct {
	*entrapg.Connector // for Credentials, and for Close, which sql.DB calls
	config             pq.Config
}

func newConnector(dsn string) (*connector, error) {
	config, err := pq.NewConfig(dsn)
	if err != nil {
		return nil, err
	}
	if config.Runtime["entra_credential"] != "none" {
		config.SSLMode = pq.SSLModeVerifyFull
	}
	for _, key := range []string{"entra_credential", "entra_client_id", "entra_tenant_id", "entra_scope"} {
		delete(config.Runtime, key) // lib/pq would send it to the server
	}
	return &connector{entrapg.NewConnector(dsn), config}, nil
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	config := c.config.Clone()
	var err error
	if config.User, config.Password, err = c.Credentials(ctx); err != nil {
		return nil, err
	}
	login, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	return login.Connect(ctx)
}

func (c *connector) Driver() driver.Driver { return &pq.Driver{} }

func open(dsn string) (*sql.DB, error) {
	c, err := newConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

func whoAmI(ctx context.Context, db *sql.DB) (user string, err error) {
	err = db.QueryRowContext(ctx, "select session_user").Scan(&user)
	return user, err
}

func main() {
	db, err := open(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	user, err := whoAmI(context.Background(), db)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in as", user)
}
