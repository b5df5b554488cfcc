// Package clients logs in to the emulator with drivers and libraries other than entrapg.
package clients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/hashicorp/go-pgmultiauth"
	pgx4 "github.com/jackc/pgx/v4"
	pgxpool4 "github.com/jackc/pgx/v4/pgxpool"
	stdlib4 "github.com/jackc/pgx/v4/stdlib"
	pgxpool5 "github.com/jackc/pgx/v5/pgxpool"
	"github.com/lib/pq"

	"github.com/entrapg/entrapg"
)

const (
	scope = "https://ossrdbms-aad.database.windows.net/.default"
	query = "select session_user::text, backend_start from pg_stat_activity where pid = pg_backend_pid()"
)

// A session is the user and the start time of a session, as the server reports them.
type session struct {
	user    string
	started time.Time
}

// login opens a connection, or lets a pool open one.
type login func(context.Context) (session, error)

// A way logs in as a user with a credential. libpq's environment variables set everything else.
type way struct {
	name string
	open func(ctx context.Context, credential azcore.TokenCredential, user string) (login, func(), error)
}

var ways = []way{
	{
		"lib/pq with entrapg's Credentials",
		func(_ context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			connector := entrapg.NewConnector("user="+user, entrapg.WithCredential(credential))
			login, closeDB := database(sql.OpenDB(passwords{connector.Credentials}))
			return login, func() { closeDB(); connector.Close() }, nil
		},
	},
	{
		"lib/pq with azidentity",
		func(_ context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			login, closeDB := database(sql.OpenDB(passwords{func(ctx context.Context) (string, string, error) {
				password, err := tokenOf(ctx, credential)
				return user, password, err
			}}))
			return login, closeDB, nil
		},
	},
	{
		"pgx v4's stdlib with azidentity",
		func(_ context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			config, err := pgx4.ParseConfig("user=" + user)
			if err != nil {
				return nil, nil, err
			}
			login, closeDB := database(stdlib4.OpenDB(*config,
				stdlib4.OptionBeforeConnect(func(ctx context.Context, config *pgx4.ConnConfig) error {
					var err error
					config.Password, err = tokenOf(ctx, credential)
					return err
				})))
			return login, closeDB, nil
		},
	},
	{
		"pgx v4's pgxpool with azidentity",
		func(ctx context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			config, err := pgxpool4.ParseConfig("user=" + user)
			if err != nil {
				return nil, nil, err
			}
			config.LazyConnect = true
			config.BeforeConnect = func(ctx context.Context, config *pgx4.ConnConfig) error {
				var err error
				config.Password, err = tokenOf(ctx, credential)
				return err
			}
			pool, err := pgxpool4.ConnectConfig(ctx, config)
			if err != nil {
				return nil, nil, err
			}
			return func(ctx context.Context) (s session, err error) {
				c, err := pool.Acquire(ctx)
				if err != nil {
					return s, err
				}
				defer c.Release()
				defer c.Conn().Close(ctx)
				err = c.QueryRow(ctx, query).Scan(&s.user, &s.started)
				return s, err
			}, pool.Close, nil
		},
	},
	{
		"go-pgmultiauth's Open",
		func(ctx context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			db, err := pgmultiauth.Open(ctx, pgmultiauth.NewConfig("user="+user, pgmultiauth.WithAzureAuth(credential)))
			if err != nil {
				return nil, nil, err
			}
			login, closeDB := database(db)
			return login, closeDB, nil
		},
	},
	{
		"go-pgmultiauth's NewDBPool",
		func(ctx context.Context, credential azcore.TokenCredential, user string) (login, func(), error) {
			pool, err := pgmultiauth.NewDBPool(ctx, pgmultiauth.NewConfig("user="+user, pgmultiauth.WithAzureAuth(credential)))
			if err != nil {
				return nil, nil, err
			}
			return func(ctx context.Context) (session, error) { return viaPool(ctx, pool) }, pool.Close, nil
		},
	},
}

// database returns a login through a database/sql pool, and a function that closes the pool.
func database(db *sql.DB) (login, func()) {
	db.SetMaxIdleConns(-1) // a connection for each query
	return func(ctx context.Context) (s session, err error) {
		err = db.QueryRowContext(ctx, query).Scan(&s.user, &s.started)
		return s, err
	}, func() { db.Close() }
}

func viaPool(ctx context.Context, pool *pgxpool5.Pool) (s session, err error) {
	c, err := pool.Acquire(ctx)
	if err != nil {
		return s, err
	}
	defer c.Release()
	defer c.Conn().Close(ctx)
	err = c.QueryRow(ctx, query).Scan(&s.user, &s.started)
	return s, err
}

func tokenOf(ctx context.Context, credential azcore.TokenCredential) (string, error) {
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	return token.Token, err
}

// passwords connects with lib/pq, which has no hook for a password that changes.
type passwords struct {
	credentials func(context.Context) (user, password string, err error)
}

func (p passwords) Connect(ctx context.Context) (driver.Conn, error) {
	user, password, err := p.credentials(ctx)
	if err != nil {
		return nil, err
	}
	config, err := pq.NewConfig("")
	if err != nil {
		return nil, err
	}
	config.User, config.Password = user, password
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

func (passwords) Driver() driver.Driver { return &pq.Driver{} }
