package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

var startUp = question{
	name: "from a DSN to the first query",
	how: "Making the connector, sql.OpenDB, one query and Close, in turns with the static password's; the " +
		"credential has a token already. The median of the pairs' ratios; allocations as above.",
	ask: askStartUp,
}

func askStartUp(ctx context.Context, b *bench) ([]*Row, error) {
	whole := &Row{Name: "DSN to first query", Unit: "ms", Figures: map[string]Figure{}}
	allocations := &Row{Name: "allocations, DSN to first query", Unit: "n", Figures: map[string]Figure{}}

	credential := b.clientSecret(0)
	if _, err := credential.GetToken(ctx, databaseToken); err != nil {
		return nil, err
	}
	once := func(w way) (time.Duration, error) {
		begin := time.Now()
		connector, err := b.open(ctx, w, credential, nil)
		if err != nil {
			return 0, err
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		var one int
		err = db.QueryRowContext(ctx, "select 1").Scan(&one)
		return time.Since(begin), err
	}
	var ratios []float64
	times, counts := map[string][]float64{}, map[string][]float64{}
	for range pick(b, 200, 3) {
		took := map[string]float64{}
		for _, w := range ways {
			t, err := once(w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			took[w.name] = milliseconds(t)
			times[w.name] = append(times[w.name], took[w.name])
		}
		ratios = append(ratios, took[ours]/took[floor])
	}
	for range pick(b, 5, 1) {
		for _, w := range ways {
			n, err := mallocs(pick(b, 20, 2), func() error {
				_, err := once(w)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			counts[w.name] = append(counts[w.name], n)
		}
	}
	for _, w := range ways {
		whole.Figures[w.name] = Figure{Value: median(times[w.name])}
		allocations.Figures[w.name] = Figure{Value: slices.Min(counts[w.name])}
	}
	whole.compare(floor, ratios)
	return []*Row{whole, allocations}, nil
}

var imports = question{
	name: "package initialisation",
	how: "Three programs that do nothing but import, under GODEBUG=inittrace=1: pgx's stdlib and azidentity (in " +
		"the column hook, which needs them), " +
		"entrapg besides, and go-pgmultiauth besides. The sums over all packages, medians of runs that take turns.",
	ask: askImports,
}

func askImports(ctx context.Context, b *bench) ([]*Row, error) {
	programs := map[string]string{ours: "./imports/entrapg", "hook": "./imports/pgx", "multiauth": "./imports/pgmultiauth"}
	duration := &Row{Name: "package initialisation", Unit: "ms", Figures: map[string]Figure{}}
	allocations := &Row{Name: "allocations, initialisation", Unit: "n", Figures: map[string]Figure{}}

	dir, err := os.MkdirTemp("", "entrapg-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, source := range programs {
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), source).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w\n%s", source, err, out)
		}
	}
	var ratios []float64
	times, counts := map[string][]float64{}, map[string][]float64{}
	for range pick(b, 31, 1) {
		took := map[string]float64{}
		for name := range programs {
			t, n, err := initialisation(ctx, filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			took[name] = t
			times[name], counts[name] = append(times[name], t), append(counts[name], n)
		}
		ratios = append(ratios, took[ours]/took["hook"])
	}
	for name := range programs {
		duration.Figures[name] = Figure{Value: median(times[name])}
		allocations.Figures[name] = Figure{Value: median(counts[name])}
	}
	duration.compare("hook", ratios)
	return []*Row{duration, allocations}, nil
}

var initLine = regexp.MustCompile(`(?m)^init \S+ @\S+ ms, (\S+) ms clock, \d+ bytes, (\d+) allocs$`)

// initialisation runs a program and adds up what its packages' initialisation took.
func initialisation(ctx context.Context, program string) (ms, allocs float64, err error) {
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return 0, 0, err
	}
	lines := initLine.FindAllSubmatch(stderr.Bytes(), -1)
	if len(lines) == 0 {
		return 0, 0, fmt.Errorf("%s tells of no initialisation: %s", program, stderr.Bytes())
	}
	for _, line := range lines {
		t, err := strconv.ParseFloat(string(line[1]), 64)
		if err != nil {
			return 0, 0, err
		}
		n, err := strconv.ParseFloat(string(line[2]), 64)
		if err != nil {
			return 0, 0, err
		}
		ms, allocs = ms+t, allocs+n
	}
	return ms, allocs, nil
}
