package entrapg

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg/internal/preview"
)

func init() { preview.Open = openPreview }

// openPreview is what cmd/entrapg sees of a connector's inside.
func openPreview(dsn string) (*preview.Login, error) {
	s, err := newSettings(&defaultDriver.sources, dsn, []Option{WithLogger(nil)}, false, func(dsn string) (*pgx.ConnConfig, error) {
		pool, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return nil, err
		}
		return pool.ConnConfig, nil
	})
	if err != nil {
		return nil, err
	}
	account := s.account
	l := &preview.Login{
		Config: s.config, Said: s.said, SSLMode: s.rules.sslmode, Azure: slices.ContainsFunc(hosts(&s.config.Config), func(host string) bool { return cloudOf(host) != nil }),
		Connect: (&Connector{settings: s}).Connect, Close: account.close,
	}
	if account.source != nil {
		l.Credential, l.Scope = account.source.credential.name, account.source.key.scope
	}
	l.Token = func(ctx context.Context, needUser bool) (*preview.Token, error) {
		if !needUser && s.config.User == "" && account.source != nil {
			t, _, err := account.source.get(ctx, need{logger: account.logger, closed: account.closed})
			if err != nil {
				return nil, err
			}
			return &preview.Token{Value: t.value, Expires: t.expires}, nil
		}
		t, user, _, err := account.get(ctx, s.config.User)
		if t == nil {
			return nil, err
		}
		found := &preview.Token{Value: t.value, Expires: t.expires, User: user}
		if s.config.User == "" {
			found.Claim = t.user.Claim
		}
		return found, err
	}
	return l, nil
}
