package entrapg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolConfig returns a configuration for [pgxpool.NewWithConfig] whose every
// connection logs in as those of a [Connector] do. It takes the same DSNs and
// options, and pgxpool's own pool_… settings besides. Its errors are
// [ConfigError], and [UsernameError] for a user that is set to no possible name;
// what depends on the token comes from the pool's own methods, as from Connect.
//
// The configuration's BeforeConnect hook provides the token. To add a hook of
// your own, call that one from yours. The token and the credential behind it
// are shared by all pools made from one configuration and its copies, and with
// whoever else is given the same credential by [WithCredential]. User may be
// changed in a copy; hosts, whose cloud chooses the scope, only by
// [WithConnConfig]. The rules
// for TLS are applied to every connection anew.
//
// pgxpool's hooks allow almost all that Connector does, with three exceptions. A
// token that the server refuses is dropped, but pgxpool makes no second attempt
// by itself: the query in hand fails, with pgx's error instead of a
// [LoginError], and the next connection has a new token. Of a refusal by
// OAUTHBEARER, which Azure does not use, no hook learns: such a token stays. And
// where a connection
// breaks in the middle of a login, the [pgconn.ConnectError] that pgxpool
// returns has the token in Config.Password; its text has not. With
// entra_credential=none, the configuration's ConnString has the DSN as it was
// given, with its password, as pgx keeps it.
func PoolConfig(dsn string, opts ...Option) (*pgxpool.Config, error) {
	var pool *pgxpool.Config
	s, err := newSettings(&defaultDriver.sources, dsn, opts, false, func(dsn string) (_ *pgx.ConnConfig, err error) {
		if pool, err = pgxpool.ParseConfig(dsn); err != nil {
			return nil, err
		}
		return pool.ConnConfig, nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.stdlib) > 0 {
		return nil, &ConfigError{Setting: "WithStdlib", Problem: "a pgxpool has no use for database/sql's options: set the hooks of the pgxpool.Config instead"}
	}
	account := s.account
	pool.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		if config.Password != "" {
			return &ConfigError{Setting: "ConnConfig", Problem: "it sets Password, which is for the token: leave it alone"}
		}
		t, user, _, err := account.get(ctx, config.User)
		if err != nil {
			return err
		}
		if err := s.rules.apply(&config.Config); err != nil {
			return err
		}
		account.lend(config, user, t)
		return nil
	}
	return pool, nil
}
