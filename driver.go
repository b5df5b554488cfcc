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

// OpenConnector reports at once what is wrong with dsn. An empty one is not for
// connecting, as a rule: who wraps drivers gets at this one by sql.Open("entrapg", "")
// and [sql.DB.Driver].
func (d *entraDriver) OpenConnector(dsn string) (driver.Connector, error) {
	c := d.newConnector(dsn, nil, true)
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
