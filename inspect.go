package entrapg

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg/internal/inspect"
)

func init() { inspect.Open = openInspection }

// openInspection returns the steps of a login with a DSN.
func openInspection(dsn string) (*inspect.Login, error) {
	c := newConnector(&defaultDriver.identities, []Option{WithLogger(nil)}, false, func() (*config, error) {
		return parseDSN(dsn, parsePool(new(pgxpool.Config)))
	})
	if c.err != nil {
		return nil, c.err
	}
	config := c.config
	l := &inspect.Login{
		Config:   config.pgx,
		Settings: config.settings,
		SSLMode:  config.tls.sslmode,
		Azure:    slices.ContainsFunc(hosts(&config.pgx.Config), func(host string) bool { return serviceOf(host) != nil }),
		Connect:  c.Connect,
		Close:    func() { c.Close() },
	}
	if c.identity == nil {
		l.Token = func(context.Context, bool) (*inspect.Token, error) {
			return &inspect.Token{Value: config.password(), User: config.pgx.User}, nil
		}
		return l, nil
	}
	l.Credential, l.Scope = c.identity.credential.name, c.identity.key.scope
	l.Token = func(ctx context.Context, needUser bool) (*inspect.Token, error) {
		t, _, err := c.identity.tokens.Get(ctx, c.request(c.key))
		if err != nil {
			return nil, c.identity.tokenError(c.identity.key.scope, err)
		}
		found := &inspect.Token{Value: t.Secret(), Expires: t.Expires, User: config.pgx.User}
		if found.User != "" || !needUser {
			return found, nil
		}
		name, err := c.identity.users.resolve(ctx, c.request(c.key), t)
		found.User, found.Claim = name.Role, name.Claim
		if failed := c.identity.users.failure(t, name.Role); failed != nil {
			found.Lookup = failed
		}
		return found, err
	}
	return l, nil
}
