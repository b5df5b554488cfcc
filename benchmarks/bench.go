package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

// A bench has the server on which all ways are measured, and a principal with a
// role on it.
type bench struct {
	server    *entrapgtest.Server
	principal *entrapgtest.Principal
	dsn       *url.URL // sets the user, because the other ways do not derive one
	password  string   // a token that does not expire during the run
	short     bool     // run briefly, to test the benchmarks themselves
	begin     time.Time
}

func newBench(ctx context.Context, short bool) (*bench, error) {
	server, err := entrapgtest.Start(ctx, entrapgtest.Config{})
	if err != nil {
		return nil, err
	}
	b := &bench{server: server, principal: server.Tenant.NewServicePrincipal("bench"), short: short, begin: time.Now()}
	if err := server.CreateRole(ctx, "", b.principal); err != nil {
		server.Close()
		return nil, err
	}
	token, err := b.principal.GetToken(ctx, databaseToken)
	if err == nil {
		b.password = token.Token
		b.dsn, err = url.Parse(server.DSN())
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	b.dsn.User = url.User(b.principal.Name)
	return b, nil
}

// open creates a connector of one way. adjust may be nil.
func (b *bench) open(
	ctx context.Context, w way, c *credential, adjust func(*pgx.ConnConfig),
) (driver.Connector, error) {
	return w.open(ctx, b.target(w, c, adjust))
}

func (b *bench) target(w way, c *credential, adjust func(*pgx.ConnConfig)) target {
	dsn := *b.dsn
	if w.password {
		dsn.User = url.UserPassword(b.principal.Name, b.password)
	}
	return target{dsn: dsn.String(), credential: c, adjust: adjust}
}

// tokensLive sets the lifetime of new tokens. Zero resets it to an hour.
func (b *bench) tokensLive(life time.Duration) {
	b.server.SetFaults(entrapgtest.Faults{TokenLife: life})
}

// pick returns full, or brief for a short run.
func pick[T any](short bool, brief, full T) T {
	if short {
		return brief
	}
	return full
}

// connectors opens one connector of each way, all at the same time, and connects
// each once.
func (b *bench) connectors(
	ctx context.Context, c func() *credential,
) (map[string]driver.Connector, map[string]*credential, error) {
	opened, credentials := make([]driver.Connector, len(ways)), make([]*credential, len(ways))
	errs := make([]error, len(ways))
	var all sync.WaitGroup
	for i, w := range ways {
		credentials[i] = c()
		all.Go(func() {
			if opened[i], errs[i] = b.open(ctx, w, credentials[i], nil); errs[i] == nil {
				_, errs[i] = connect(ctx, opened[i])
			}
		})
	}
	all.Wait()
	byName, credentialOf := map[string]driver.Connector{}, map[string]*credential{}
	for i, w := range ways {
		byName[w.name], credentialOf[w.name] = opened[i], credentials[i]
	}
	if err := errors.Join(errs...); err != nil {
		closeAll(byName)
		return nil, nil, err
	}
	return byName, credentialOf, nil
}

// settle runs rounds and returns their ratios. If the median exceeds the limit, it
// runs as many again, at most twice, because other work on the machine can be the
// cause.
func (b *bench) settle(limit float64, rounds int, round func(i int) (float64, error)) ([]float64, error) {
	const repeats, patience = 3, 2 * time.Minute
	var all []float64
	for range repeats {
		for range rounds {
			ratio, err := round(len(all))
			if err != nil {
				return nil, err
			}
			all = append(all, ratio)
		}
		if median(all) <= limit || time.Since(b.begin) > patience {
			break
		}
	}
	return all, nil
}

func closeAll(connectors map[string]driver.Connector) {
	for _, c := range connectors {
		closeConnector(c)
	}
}
