package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"time"
)

const shortLife = 4 * time.Second

var replacement = question{
	name: "slowest connect while tokens are replaced",
	how: "Tokens are valid for 4 s, a request takes 500 ms, and the credential caches as azidentity's do. entrapg and the " +
		"static password connect in turns without a pause. Each window of 3.5 s contains one replacement; the ratio " +
		"compares the slowest connects of a window and is the median over all windows. The other ways connect side by " +
		"side afterwards, through two replacements.",
	ask: askTurnover,
}

func askTurnover(ctx context.Context, b *bench) ([]*Row, error) {
	const limit = 1.2
	life := pick(b.short, time.Minute, shortLife)
	latency := pick(b.short, 50*time.Millisecond, 500*time.Millisecond)
	window := pick(b.short, 200*time.Millisecond, life*7/8)
	b.tokensLive(life)
	defer b.tokensLive(0)
	row := &Row{Name: "slowest connect, token replaced", Unit: "ms", Figures: map[string]Figure{}}

	entra, err := b.open(ctx, ways[0], clientSecret(b.principal, latency), nil)
	if err != nil {
		return nil, err
	}
	defer closeConnector(entra)
	static, err := b.open(ctx, ways[1], nil, nil)
	if err != nil {
		return nil, err
	}
	if _, _, err := pair(ctx, 0, entra, static); err != nil { // the first token
		return nil, err
	}
	var own, least []float64
	ratios, err := b.settle(limit, pick(b.short, 1, 7), func(int) (float64, error) {
		var a, s time.Duration
		end := time.Now().Add(window)
		for i := 0; i == 0 || time.Now().Before(end); i++ {
			tookA, tookS, err := pair(ctx, i, entra, static)
			if err != nil {
				return 0, err
			}
			a, s = max(a, tookA), max(s, tookS)
		}
		own, least = append(own, milliseconds(a)), append(least, milliseconds(s))
		return float64(a) / float64(s), nil
	})
	if err != nil {
		return nil, err
	}
	row.Figures[ours], row.Figures[floor] = Figure{Value: median(own)}, Figure{Value: median(least)}
	row.atMost(limit, floor, ratios)

	connectors, _, err := b.connectors(ctx, func() *credential { return clientSecret(b.principal, latency) })
	if err != nil {
		return nil, err
	}
	defer closeAll(connectors)
	end := func(string) time.Time { return time.Now().Add(2 * window) }
	seen := observe(ctx, connectors, end, pick(b.short, 5*time.Millisecond, 10*time.Millisecond))
	for _, w := range ways[2:] {
		row.Figures[w.name] = seen[w.name].slowest()
	}
	return []*Row{row}, nil
}

var outage = question{
	name: "Entra down while a token is valid",
	how: "Each way logs in with a token that is valid for 4 s. Then Entra is down until that token expires, and each way " +
		"connects every 20 ms. The credential caches nothing, as the Azure CLI's. The benchmark recovers from panics, " +
		"which would end a program.",
	ask: askOutage,
}

func askOutage(ctx context.Context, b *bench) ([]*Row, error) {
	life := pick(b.short, time.Minute, shortLife)
	b.tokensLive(life)
	defer b.tokensLive(0)
	connectors, credentials, err := b.connectors(ctx, func() *credential { return commandLine(b.principal, 20*time.Millisecond) })
	if err != nil {
		return nil, err
	}
	defer closeAll(connectors)
	for _, c := range credentials {
		c.down.Store(true)
	}
	seen := observe(ctx, connectors, func(name string) time.Time {
		if b.short {
			return time.Now().Add(200 * time.Millisecond)
		}
		expires := credentials[name].expires()
		if expires.IsZero() {
			expires = time.Now().Add(life)
		}
		return expires.Add(-life / 10) // a later one may be rejected when it arrives
	}, 20*time.Millisecond)
	row := &Row{Name: "connects served, Entra down", Unit: "%", Figures: map[string]Figure{}, Target: "100 %"}
	for name, o := range seen {
		row.Figures[name] = o.served()
	}
	row.judge(row.Figures[ours].Value == 100)
	return []*Row{row}, nil
}

// observed is the result of one way's connects.
type observed struct {
	took     []float64 // successful ones
	failed   int
	panicked bool
}

func (o *observed) add(took time.Duration, err error) {
	var panicked errPanicked
	switch {
	case err == nil:
		o.took = append(o.took, milliseconds(took))
	case errors.As(err, &panicked):
		o.panicked = true
		fallthrough
	default:
		o.failed++
	}
}

func (o *observed) word() string {
	if o.panicked {
		return "panics"
	}
	return ""
}

// served returns the share of connects that succeeded.
func (o *observed) served() Figure {
	return Figure{Value: 100 * float64(len(o.took)) / float64(max(1, len(o.took)+o.failed)), Word: o.word()}
}

// slowest returns the slowest connect, or a word if one failed.
func (o *observed) slowest() Figure {
	f := Figure{Word: o.word()}
	if len(o.took) > 0 {
		f.Value = quantile(o.took, 1)
	}
	if f.Word == "" && o.failed > 0 {
		f.Word = "fails"
	}
	return f
}

// observe connects with all connectors at the same time, repeatedly and with a
// pause, each until the time that end returns for it.
func observe(
	ctx context.Context, connectors map[string]driver.Connector, end func(name string) time.Time, pause time.Duration,
) map[string]*observed {
	seen := map[string]*observed{}
	var all sync.WaitGroup
	for name, c := range connectors {
		o, until := &observed{}, end(name)
		seen[name] = o
		all.Go(func() {
			for time.Now().Before(until) && ctx.Err() == nil {
				o.add(connect(ctx, c))
				sleep(ctx, pause)
			}
		})
	}
	all.Wait()
	return seen
}
