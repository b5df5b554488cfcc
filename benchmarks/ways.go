package main

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/hashicorp/go-pgmultiauth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A way is one method by which a Go program logs in with an Entra token.
type way struct {
	name     string // heading of its column
	what     string
	password bool // logs in with a password that does not expire
	open     func(ctx context.Context, to target) (driver.Connector, error)
}

// A target is a server to log in to, with a credential.
type target struct {
	dsn        string
	credential *credential
	adjust     func(*pgx.ConnConfig) // may be nil
}

const (
	ours  = "entrapg"
	floor = "static"
)

// ways are the columns of the table: entrapg first, the lower bound second.
var ways = []way{
	{name: ours, what: "entrapg.NewConnector", open: openEntrapg},
	{
		name: floor, what: "pgx's connector with a password that never changes: the lower bound",
		password: true, open: openStatic,
	},
	{name: "hook", what: "pgx's connector with a BeforeConnect hook that calls credential.GetToken", open: openHook},
	{name: "multiauth", what: "github.com/hashicorp/go-pgmultiauth", open: openMultiauth},
	{name: "fixed", what: "pgx's connector with the token that the credential returned at the start", open: openFixed},
}

func openEntrapg(_ context.Context, to target) (driver.Connector, error) {
	opts := []entrapg.Option{entrapg.WithCredential(to.credential), entrapg.WithLogger(nil)}
	if to.adjust != nil {
		opts = append(opts, entrapg.WithConnConfig(to.adjust))
	}
	return entrapg.NewConnector(to.dsn, opts...), nil
}

func openStatic(_ context.Context, to target) (driver.Connector, error) {
	config, err := to.config()
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*config), nil
}

func openHook(_ context.Context, to target) (driver.Connector, error) {
	config, err := to.config()
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*config,
		stdlib.OptionBeforeConnect(func(ctx context.Context, config *pgx.ConnConfig) error {
			token, err := to.credential.GetToken(ctx, databaseToken)
			config.Password = token.Token
			return err
		})), nil
}

// openMultiauth is like pgmultiauth.GetConnector, but accepts an adjusted
// configuration.
func openMultiauth(ctx context.Context, to target) (driver.Connector, error) {
	config, err := to.config()
	if err != nil {
		return nil, err
	}
	hook, err := pgmultiauth.BeforeConnectFn(ctx,
		pgmultiauth.NewConfig(to.dsn, pgmultiauth.WithAzureAuth(withoutMargin{to.credential})))
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(hook)), nil
}

func openFixed(ctx context.Context, to target) (driver.Connector, error) {
	config, err := to.config()
	if err != nil {
		return nil, err
	}
	token, err := to.credential.GetToken(ctx, databaseToken)
	if err != nil {
		return nil, err
	}
	config.Password = token.Token
	return stdlib.GetConnector(*config), nil
}

var databaseToken = policy.TokenRequestOptions{Scopes: []string{entrapgtest.DefaultScope}}

// config returns the configuration of the ways that use pgx directly. It has the
// timeout that is entrapg's default, because pgx allocates for a timeout.
func (to target) config() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(to.dsn)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = 30 * time.Second
	if to.adjust != nil {
		to.adjust(config)
	}
	return config, nil
}

// withoutMargin adds a minute to the expiry, for a library that replaces a token a
// minute before it expires. The library then replaces tokens that are valid for
// seconds in their last quarter, as entrapg does.
type withoutMargin struct{ *credential }

func (m withoutMargin) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := m.credential.GetToken(ctx, options)
	if kept := m.kept.Load(); kept != nil {
		token.ExpiresOn = kept.stale.Add(time.Minute)
	}
	return token, err
}

// errPanicked is a panic in Connect, which would end a program.
type errPanicked struct{ value any }

func (e errPanicked) Error() string { return fmt.Sprintf("panicked: %v", e.value) }

// connect opens a connection and closes it. It returns how long opening took.
func connect(ctx context.Context, c driver.Connector) (took time.Duration, err error) {
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			took, err = time.Since(begin), errPanicked{p}
		}
	}()
	conn, err := c.Connect(ctx)
	took = time.Since(begin)
	if err == nil {
		conn.Close()
	}
	return took, err
}

func closeConnector(c driver.Connector) {
	if closer, ok := c.(io.Closer); ok {
		closer.Close()
	}
}
