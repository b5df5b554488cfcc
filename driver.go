package entrapg

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

func init() { sql.Register("entrapg", defaultDriver) }

// defaultDriver is what sql.Open("entrapg", dsn) uses, and NewConnector too, as
// http.Get uses http.DefaultClient.
var defaultDriver = &entraDriver{}

var (
	_ driver.Driver        = (*entraDriver)(nil)
	_ driver.DriverContext = (*entraDriver)(nil)
)

// An entraDriver makes connectors for [sql.Open]. It owns what they share:
// credentials and their tokens.
type entraDriver struct{ sources tokenSources }

// OpenConnector reports at once what is wrong with dsn. An empty one it takes in
// any case: that is how those who wrap drivers ask for this one.
func (d *entraDriver) OpenConnector(dsn string) (driver.Connector, error) {
	c := d.newConnector(dsn, nil, true)
	if c.err != nil && dsn != "" {
		return nil, c.err
	}
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
