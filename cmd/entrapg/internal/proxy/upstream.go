package proxy

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/inspect"
)

// An Upstream is where clients are logged in. It is created by [NewUpstream],
// safe for concurrent use, and may serve several Servers.
type Upstream struct {
	connector *entrapg.Connector
	config    *pgx.ConnConfig
}

// NewUpstream returns the upstream of a DSN. It dials nothing and requests no
// token. An invalid DSN or option is an [*entrapg.ConfigError].
func NewUpstream(dsn string, opts ...entrapg.Option) (*Upstream, error) {
	login, err := inspect.Open(dsn)
	if err != nil {
		return nil, err
	}
	defer login.Close()
	return &Upstream{config: login.Config, connector: entrapg.NewConnector(dsn, opts...)}, nil
}

// Check logs in once and closes the connection.
func (u *Upstream) Check(ctx context.Context) error {
	conn, err := u.connector.Connect(ctx)
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Config returns the configuration of the DSN, without a token. It must not be
// changed.
func (u *Upstream) Config() *pgx.ConnConfig { return u.config }

// Stats returns the counters of logins and tokens.
func (u *Upstream) Stats() entrapg.Stats { return u.connector.Stats() }

// Close ends every wait for a token. Sessions continue.
func (u *Upstream) Close() error { return u.connector.Close() }
