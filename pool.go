package entrapg

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolConfig returns a configuration for [pgxpool.NewWithConfig] whose
// connections log in as those of a [Connector] do. It accepts the same DSNs and
// options, and pgxpool's pool_… settings. It returns a [ConfigError], or a
// [UsernameError] for a user that cannot be the name of a role. The errors of a
// login come from the pool's methods.
//
// The BeforeConnect hook of the configuration provides the token. To add a hook,
// call that one from yours. All pools made from the configuration and its copies
// share the token and the credential, and so does every connector that is given
// the same credential by [WithCredential]. User may be changed in a copy, but
// hosts only by [WithConnConfig], because they determine the token's scope. The
// rules for TLS are applied to each connection.
//
// pgxpool does not retry a login. If a server rejects a token, the query fails
// with pgx's error, which [Explain] explains, and the next connection uses
// another token.
func PoolConfig(dsn string, opts ...Option) (*pgxpool.Config, error) {
	var pool *pgxpool.Config
	c := newConnector(&defaultDriver.identities, dsn, opts, false, func(dsn string) (_ *pgx.ConnConfig, err error) {
		if pool, err = pgxpool.ParseConfig(dsn); err != nil {
			return nil, err
		}
		return pool.ConnConfig, nil
	})
	if c.err != nil {
		return nil, c.err
	}
	if len(c.config.stdlib) > 0 {
		return nil, &ConfigError{Setting: "WithStdlib", Problem: "not used with pgxpool; set the hooks of the pgxpool.Config"}
	}
	pool.BeforeConnect = c.beforeConnect
	return pool, nil
}
