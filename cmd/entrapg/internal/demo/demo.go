// Package demo is the command demo: a pool that outlives its tokens, beside one with a
// fixed token.
package demo

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/entrapgtest"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// Command returns the command demo, which writes to std.
func Command(std command.Streams) *cli.Command {
	length := 20 * time.Second
	return &cli.Command{
		Name:      "demo",
		Usage:     "watch a pool outlive many tokens, on this machine",
		UsageText: "entrapg demo\nentrapg demo --for 60s",
		Description: "Starts a PostgreSQL that checks tokens as Azure does, with tokens that expire after a few seconds. " +
			"Two pools do the same work: one with entrapg, one with the token that was valid at the start. At the end, the " +
			"demo shows measurements of both.\n" +
			"The demo requires the programs of PostgreSQL on this machine. It does not use Azure.",
		Flags: []cli.Flag{&cli.DurationFlag{
			Name: "for", Value: length, Destination: &length, Validator: command.AtLeast(6 * time.Second),
			Usage: "how long the pools work, a `DURATION` of at least 6s",
		}},
		ArgValidator: command.NoArguments,
		Action:       func(ctx context.Context, _ *cli.Command) error { return run(ctx, length, std.Out) },
	}
}

// Settings of the demo. Entra answers slowly, so that waiting for it would be
// visible.
const (
	tokenLife  = 4 * time.Second
	entraDelay = 300 * time.Millisecond
	poolSize   = 4
	pause      = 20 * time.Millisecond  // between the queries of a worker
	connLife   = 150 * time.Millisecond // short, so that there are always logins
)

func run(ctx context.Context, length time.Duration, out *terminal.Output) error {
	out.Printf("%s\n",
		out.Bold("Two pools, one PostgreSQL, tokens that are valid for "+tokenLife.String()+" instead of an hour"))
	out.Printf("This takes about %s.\n\n", terminal.Duration(length))
	out.Printf("starting PostgreSQL and an Entra tenant …\n")
	d, err := start(ctx)
	if err != nil {
		return err
	}
	defer d.server.Close()
	out.Printf("%s PostgreSQL %s, %s as %s, on %s\n\n",
		out.Good("✓"), d.version, d.identity.Kind, d.identity.Name, d.server.Addr())

	if err := errors.Join(d.work(ctx, length, out), d.server.Close()); err != nil {
		return err
	}
	d.summarize(out)
	return d.verdict()
}

// A demonstration is the server, the identity and the two pools.
type demonstration struct {
	server   *entrapgtest.Server
	identity *entrapgtest.Principal
	version  string
	requests *requests
	entra    *entrapg.Connector

	fresh, fixed *pool
}

func start(ctx context.Context) (_ *demonstration, err error) {
	server, err := entrapgtest.Start(ctx, entrapgtest.Config{TokenLife: tokenLife})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, server.Close())
		}
	}()
	d := &demonstration{server: server, identity: server.Tenant.NewUserAssignedIdentity("shop-api")}
	if err := server.CreateRole(ctx, "", d.identity); err != nil {
		return nil, err
	}

	// The second pool keeps this token.
	token, err := d.identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{entrapgtest.DefaultScope}})
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(server.DSN())
	if err != nil {
		return nil, err
	}
	config.User, config.Password = d.identity.Name, token.Token
	server.SetFaults(entrapgtest.Faults{EntraDelay: entraDelay})

	d.requests = &requests{credential: d.identity}
	d.entra = entrapg.NewConnector(server.DSN(), entrapg.WithCredential(d.requests), entrapg.WithLogger(nil))
	d.fresh = newPool(d.entra, d.requests)
	d.fixed = newPool(stdlib.GetConnector(*config), d.requests)
	return d, d.fresh.db.QueryRowContext(ctx,
		"select split_part(current_setting('server_version'), ' ', 1)").Scan(&d.version)
}

// work runs both pools, and prints a line each second.
func (d *demonstration) work(ctx context.Context, length time.Duration, out *terminal.Output) error {
	// Not a deadline: a connection could reach it shortly before the context reports it.
	working, stop := context.WithCancel(ctx)
	defer time.AfterFunc(length, stop).Stop()
	defer stop()
	var workers sync.WaitGroup
	for range poolSize {
		workers.Go(func() { d.fresh.work(working) })
		workers.Go(func() { d.fixed.work(working) })
	}

	out.Printf("%s\n", out.Dim(fmt.Sprintf("%6s  %-13s  %-26s  %s", "", "token, left", "entrapg", "token fixed at start")))
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	reported := false
	for working.Err() == nil {
		select {
		case <-tick.C:
			expiry := d.entra.Stats().TokenExpiry
			token := fmt.Sprintf("no. %d, %.1f s", d.requests.number(expiry), max(0, time.Until(expiry)).Seconds())
			out.Printf("%4.0f s  %-13s  %s  %s\n",
				time.Since(start).Seconds(), token, d.fresh.line(out, 26), d.fixed.line(out, 0))
			if text := d.fixed.lastError(); text != "" && !reported {
				reported = true
				out.Printf("%s\n", out.Bad(fmt.Sprintf("%6s  └ %s", "", text)))
			}
		case <-working.Done():
		}
	}
	workers.Wait()
	d.fresh.db.Close()
	d.fixed.db.Close()
	return ctx.Err()
}

func (d *demonstration) summarize(out *terminal.Output) {
	out.Printf("\n%s\n", out.Bold(fmt.Sprintf("%-36s %12s %12s", "measured in this run", "entrapg", "fixed token")))
	row := func(name string, fresh, fixed any) { out.Printf("%-36s %12v %12v\n", name, fresh, fixed) }
	row("queries done", d.fresh.queries.Load(), d.fixed.queries.Load())
	row("queries failed", d.fresh.failures.Load(), d.fixed.failures.Load())
	row("connections opened", d.fresh.opened.Load(), d.fixed.opened.Load())
	row("logins rejected", d.fresh.rejected.Load(), d.fixed.rejected.Load())
	row("tokens requested", d.requests.count(), 1)
	during, otherwise := d.fresh.slowest()
	out.Printf("slowest connect\n")
	row("  while a token was being replaced", terminal.Milliseconds(during), "–")
	row("  at other times", terminal.Milliseconds(otherwise), "–")
	out.Printf("\n%s\n", out.Dim(fmt.Sprintf("Entra took %.0f ms for each token. One more request, for Azure Resource "+
		"Manager,\nfound the user's name.", entraDelay.Seconds()*1000)))
}

// verdict returns an error if the run did not show the difference.
func (d *demonstration) verdict() error {
	switch {
	case d.fresh.failures.Load() > 0:
		return fmt.Errorf("%d queries of entrapg's pool failed: %s", d.fresh.failures.Load(), d.fresh.lastError())
	case d.requests.count() < 2:
		return errors.New("the token was never replaced")
	case d.fixed.rejected.Load() == 0:
		return errors.New("the fixed token was never rejected")
	}
	return nil
}

// requests is a credential that records the requests for a token for the database.
type requests struct {
	credential azcore.TokenCredential

	mu       sync.Mutex // guards the following
	started  int
	spans    []span      // of completed requests
	expiries []time.Time // of the tokens
}

// A span is the time that a request took.
type span struct{ from, to time.Time }

func (s span) overlaps(other span) bool { return s.from.Before(other.to) && other.from.Before(s.to) }
func (s span) length() time.Duration    { return s.to.Sub(s.from) }

func (r *requests) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if options.Scopes[0] != entrapgtest.DefaultScope {
		return r.credential.GetToken(ctx, options)
	}
	from := time.Now()
	r.mu.Lock()
	r.started++
	r.mu.Unlock()
	token, err := r.credential.GetToken(ctx, options)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, span{from, time.Now()})
	if err == nil {
		r.expiries = append(r.expiries, token.ExpiresOn)
	}
	return token, err
}

// number returns the number of the token with an expiry, counted from 1, or 0 if it
// is unknown.
func (r *requests) number(expiry time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 1 + slices.IndexFunc(r.expiries, expiry.Equal)
}

func (r *requests) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

// A pool is one of the two pools, and its measurements.
type pool struct {
	driver.Connector
	db       *sql.DB
	requests *requests

	queries, failures, opened, rejected atomic.Int64
	lineQueries, lineRejected           int64 // at the last line

	mu       sync.Mutex // guards the following
	connects []span
	lastErr  error
}

func newPool(c driver.Connector, r *requests) *pool {
	p := &pool{Connector: c, requests: r}
	p.db = sql.OpenDB(p)
	p.db.SetMaxOpenConns(poolSize)
	p.db.SetMaxIdleConns(poolSize)
	p.db.SetConnMaxLifetime(connLife)
	return p
}

// Connect calls the connector's and measures its time.
func (p *pool) Connect(ctx context.Context) (driver.Conn, error) {
	from := time.Now()
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		if response := new(pgconn.PgError); errors.As(err, &response) && pgfail.IsRejection(response) {
			p.rejected.Add(1)
		}
		return nil, err
	}
	p.opened.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connects = append(p.connects, span{from, time.Now()})
	return conn, nil
}

// Close passes on sql.DB's Close.
func (p *pool) Close() error {
	if c, ok := p.Connector.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (p *pool) work(ctx context.Context) {
	for ctx.Err() == nil {
		var n int
		err := p.db.QueryRowContext(ctx, "select count(*) from pg_class").Scan(&n)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			p.queries.Add(1)
		default:
			p.failures.Add(1)
			p.mu.Lock()
			p.lastErr = err
			p.mu.Unlock()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// lastError returns the last error: the server's message, if there is one.
func (p *pool) lastError() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if response := new(pgconn.PgError); errors.As(p.lastErr, &response) {
		return response.Message
	}
	if p.lastErr != nil {
		return p.lastErr.Error()
	}
	return ""
}

// line describes the time since the last line, padded to a width.
func (p *pool) line(out *terminal.Output, width int) terminal.Text {
	queries, rejected := p.queries.Load(), p.rejected.Load()
	done, denied := queries-p.lineQueries, rejected-p.lineRejected
	p.lineQueries, p.lineRejected = queries, rejected
	if denied > 0 {
		return out.Bad(fmt.Sprintf("%-*s", width, fmt.Sprintf("✗ %d queries, %d rejected", done, denied)))
	}
	return out.Good(fmt.Sprintf("%-*s", width, fmt.Sprintf("✓ %d queries", done)))
}

// slowest returns the longest connect that a request for a token overlapped, and
// the longest one that none did. The first request counts for neither, because all
// connections wait for it.
func (p *pool) slowest() (during, otherwise time.Duration) {
	p.requests.mu.Lock()
	spans := p.requests.spans
	p.requests.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.connects {
		switch i := slices.IndexFunc(spans, c.overlaps); {
		case i < 0:
			otherwise = max(otherwise, c.length())
		case i > 0:
			during = max(during, c.length())
		}
	}
	return during, otherwise
}
