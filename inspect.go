package entrapg

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
	"github.com/entrapg/entrapg/internal/token"
)

func init() {
	inspect.Open, inspect.FixOf, inspect.KindOf = openInspection, fixOf, kindOf
	inspect.Credentials, inspect.IsLocal = credentialNames, isLocal
}

// fixOf implements [inspect.FixOf].
func fixOf(err error) inspect.Fix {
	if invalid, ok := errors.AsType[*ConfigError](err); ok {
		return invalid.fix
	}
	return inspect.Fix{}
}

// kindOf implements [inspect.KindOf].
func kindOf(err error) pgfail.Kind {
	if login, ok := errors.AsType[*LoginError](err); ok {
		return login.kind
	}
	return pgfail.Classify(err, pgfail.Login{}).Kind
}

// openInspection implements [inspect.Open].
func openInspection(dsn string) (*inspect.Login, error) {
	config, err := parseDSN(dsn, parsePool(new(pgxpool.Config)))
	c := newConnector(&defaultDriver.identities, []Option{WithLogger(nil)}, false, config, err)
	if c.err != nil {
		return nil, c.err
	}
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
	l.Credential, l.Scope, l.Identity = c.identity.credential.name, c.identity.key.scope, c.identity.credential.settings
	get := func(ctx context.Context) (*inspect.Token, *token.Token, error) {
		t, _, err := c.identity.tokens.Get(ctx, c.request(c.key))
		if err != nil {
			return nil, nil, c.identity.tokenError(c.identity.key.scope, err)
		}
		return &inspect.Token{Value: t.Secret(), Expires: t.Expires}, t, nil
	}
	l.Derive = func(ctx context.Context) (*inspect.Token, error) {
		found, t, err := get(ctx)
		if err != nil {
			return nil, err
		}
		name, err := c.identity.users.resolve(ctx, c.request(c.key), t)
		found.User, found.Claim = name.Role, name.Claim
		if failed := c.identity.users.failure(t, name.Role); failed != nil {
			found.Lookup = failed
		}
		return found, err
	}
	l.Token = func(ctx context.Context, needUser bool) (*inspect.Token, error) {
		if needUser && config.pgx.User == "" {
			return l.Derive(ctx)
		}
		found, _, err := get(ctx)
		if err != nil {
			return nil, err
		}
		found.User = config.pgx.User
		return found, nil
	}
	return l, nil
}
