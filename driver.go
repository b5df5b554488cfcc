package entrapg

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
)

func init() { sql.Register("entrapg", defaultDriver) }

// defaultDriver is used by sql.Open("entrapg", dsn), and its identities by all
// functions that create connectors and pools.
var defaultDriver = &entraDriver{}

var (
	_ driver.Driver        = (*entraDriver)(nil)
	_ driver.DriverContext = (*entraDriver)(nil)
)

// An entraDriver creates connectors for [sql.Open].
type entraDriver struct{ identities registry }

// OpenConnector returns a connector, or an error if the DSN is invalid. An empty
// DSN is not an error here: libraries that wrap drivers call
// sql.Open("entrapg", "") to get the driver from [sql.DB.Driver].
func (d *entraDriver) OpenConnector(dsn string) (driver.Connector, error) {
	config, err := parseDSN(dsn, pgx.ParseConfig)
	c := newConnector(&d.identities, nil, true, config, err)
	if c.err != nil && dsn != "" {
		return nil, c.err
	}
	c.driver = d
	return c, nil
}

// Open opens one connection. [database/sql] calls OpenConnector instead.
func (d *entraDriver) Open(dsn string) (driver.Conn, error) {
	c, err := d.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	defer c.(*Connector).Close()
	return c.Connect(context.Background())
}
