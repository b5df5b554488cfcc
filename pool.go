package entrapg

import (
	"context"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolConfig returns a configuration for [pgxpool.NewWithConfig] whose
// connections log in as those of a [Connector] do. It accepts the same DSNs, with
// pgxpool's pool_… settings, and the same options, except for [WithStdlib]. It
// returns a [ConfigError], or a [UsernameError] for a user that cannot be the name of
// a role. The pool's methods return the errors of logins.
//
// The BeforeConnect hook of the configuration provides the token. A hook that
// replaces it must call it. All pools made from the configuration and its copies
// share the token and the credential, and so does every connector that is given
// the same credential by [WithCredential]. The program may change User in a copy,
// but must change hosts by [WithConnConfig], because they determine the token's
// scope. The rules for TLS are applied to each connection. Connect through the
// pool; for database/sql, use [github.com/jackc/pgx/v5/stdlib.OpenDBFromPool].
//
// pgxpool does not retry a login. If a server rejects a token, the query fails
// with pgx's error, which [Explain] explains, and the next connection uses
// another token.
func PoolConfig(dsn string, opts ...Option) (*pgxpool.Config, error) {
	pool := new(pgxpool.Config)
	config, err := parseDSN(dsn, parsePool(pool))
	c := newConnector(&defaultDriver.identities, opts, false, config, err)
	if err := poolError(c); err != nil {
		return nil, err
	}
	pool.ConnConfig.AfterNetConnect = requireLogin(pool.ConnConfig.AfterNetConnect)
	pool.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		if config.Password != "" {
			return &ConfigError{Setting: "ConnConfig", Problem: "must not set Password, which is the token"}
		}
		return c.beforeConnect(ctx, config, c.config.password)
	}
	return pool, nil
}

// ConfigurePool changes a pool configuration that the program has parsed with
// [pgxpool.ParseConfig], so that its connections log in as those of [PoolConfig] do.
// It changes ConnConfig as [NewConnectorWithConfig] does. An existing BeforeConnect
// hook still runs, before the login. It may change the user, and the host to another
// one in the same cloud, because the token's scope does not change. A Password that
// it sets is dropped, or used with entra_credential=none.
//
// ConfigurePool returns the same errors as PoolConfig, and does not change the
// configuration if it fails. Call it once, before the pool is created.
func ConfigurePool(existing *pgxpool.Config, opts ...Option) error {
	switch {
	case !isParsedPool(existing):
		return &ConfigError{Setting: "config", Problem: "must be created by pgxpool.ParseConfig"}
	case isRequireLogin(existing.ConnConfig.AfterNetConnect):
		return &ConfigError{
			Setting: "config",
			Problem: "is already configured by PoolConfig or ConfigurePool; parse the DSN again for other options",
		}
	}
	config, err := adoptConfig(existing.ConnConfig)
	c := newConnector(&defaultDriver.identities, opts, false, config, err)
	if err := poolError(c); err != nil {
		return err
	}
	before := existing.BeforeConnect
	existing.ConnConfig = c.config.pgx
	existing.ConnConfig.AfterNetConnect = requireLogin(existing.ConnConfig.AfterNetConnect)
	existing.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		if before != nil {
			if err := before(ctx, config); err != nil {
				return err
			}
		}
		password := c.config.password
		if set := config.Password; set != "" && password != nil {
			password = func() string { return set }
		}
		config.Password = ""
		return c.beforeConnect(ctx, config, password)
	}
	return nil
}

// poolError returns the error of a connector whose logins are for a pool.
func poolError(c *Connector) error {
	switch {
	case c.err != nil:
		return c.err
	case len(c.config.stdlib) > 0:
		return &ConfigError{Setting: "WithStdlib", Problem: "not used with pgxpool; set the hooks of the pgxpool.Config"}
	}
	return nil
}

// A loginContextKey is the key of the context value that tells requireLogin that
// a login is installed.
type loginContextKey struct{}

func withLogin(ctx context.Context) context.Context {
	return context.WithValue(ctx, loginContextKey{}, true)
}

type afterNetConnect = func(context.Context, *pgconn.Config, net.Conn) (net.Conn, error)

// requireLogin returns an AfterNetConnect hook that fails unless the pool's
// BeforeConnect hook has run. Otherwise, a program that connects with the configuration
// directly would get a server's error about a missing user or password.
//
//go:noinline
func requireLogin(next afterNetConnect) afterNetConnect {
	return func(ctx context.Context, attempt *pgconn.Config, conn net.Conn) (net.Conn, error) {
		if ctx.Value(loginContextKey{}) == nil && attempt.Password == "" {
			return conn, &ConfigError{
				Setting: "ConnConfig",
				Problem: "has no token, because the pool's BeforeConnect hook has not run; " +
					"connect through the pgxpool.Pool or stdlib.OpenDBFromPool, and call the existing BeforeConnect if you replace it",
			}
		}
		if next == nil {
			return conn, nil
		}
		return next(ctx, attempt, conn)
	}
}
