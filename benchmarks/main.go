// Command benchmarks measures entrapg next to the alternatives: on one server, in
// one run, as ratios. It prints a table, writes it to results.md and results.json,
// and draws docs/performance.svg.
//
//	go run .                 in this directory
//	go run . -picture        draws the picture of the existing results.json
//	go run . -sessions 5000  opens this number of sessions through the proxy at once
//
// The table shows targets that were missed. The exit code is 1 if something could
// not be measured.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"time"
)

const (
	pictureFile = "../docs/performance.svg"
	document    = "../docs/performance.md"
)

func main() {
	onlyPicture := flag.Bool("picture", false, "draw the picture of results.json without measuring")
	onlyProxy := flag.Bool("proxy", false, "measure the proxy only, and write nothing")
	sessions := flag.Int("sessions", 0, "open this `number` of sessions through the proxy at once, and write nothing")
	short := flag.Bool("short", false, "run briefly and write nothing, to test the benchmarks themselves")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *sessions > 0 {
		text, err := measureSessions(ctx, *sessions)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(text)
		return
	}
	if *onlyProxy {
		rows, err := measureProxy(ctx, *short)
		fmt.Print(aligned(cells(proxyColumns, rows)))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, *onlyPicture, *short); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, onlyPicture, short bool) error {
	if onlyPicture {
		var r Results
		data, err := os.ReadFile("results.json")
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			return err
		}
		return drawPicture(&r)
	}
	r, err := measure(ctx, short)
	if r != nil {
		fmt.Print(report{r}.text())
	}
	if err != nil || short {
		return err
	}
	data, err := r.marshal()
	if err != nil {
		return err
	}
	if err := os.WriteFile("results.json", data, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("results.md", []byte(report{r}.markdown()), 0o644); err != nil {
		return err
	}
	return errors.Join(explain(report{r}.parts()), drawPicture(r))
}

// explain writes the parts of a Connect into docs/performance.md.
func explain(parts string) error {
	const from, to = "<!-- make bench writes from here -->\n", "<!-- to here -->"
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(from))
	_, after, ok2 := bytes.Cut(rest, []byte(to))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no %q and %q", document, from, to)
	}
	return os.WriteFile(document, slices.Concat(before, []byte(from+"\n"+parts+"\n"+to), after), 0o644)
}

func drawPicture(r *Results) error {
	svg, err := picture{r}.svg()
	if err != nil {
		return err
	}
	return os.WriteFile(pictureFile, svg, 0o644)
}

// measure runs every measurement. With an error, it returns the results so far.
func measure(ctx context.Context, short bool) (_ *Results, failure error) {
	begin := time.Now()
	b, err := newBench(ctx, short)
	if err != nil {
		return nil, err
	}
	defer b.server.Close()
	r := &Results{}
	if r.Settings, err = settings(ctx, b); err != nil {
		return nil, err
	}
	progress := func(name string) { fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(begin).Seconds(), name) }
	for _, q := range questions {
		progress(q.name)
		rows, err := q.ask(ctx, b)
		if err != nil {
			failure = fmt.Errorf("%s: %w", q.name, err)
			fmt.Fprintln(os.Stderr, failure)
			continue
		}
		for _, row := range rows {
			row.Question = q.name
		}
		r.Rows = append(r.Rows, rows...)
	}
	progress("the parts of a Connect")
	if r.Anatomy, err = anatomy(ctx, b); err != nil {
		return r, fmt.Errorf("the parts of a Connect: %w", err)
	}
	progress("the chart")
	t, row, err := watch(ctx, b)
	if err != nil {
		return r, fmt.Errorf("the chart: %w", err)
	}
	r.Timeline, r.Rows = t, append(r.Rows, row)
	progress("the proxy")
	switch r.Proxy, err = measureProxy(ctx, short); {
	case short && errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "":
		progress("the proxy: skipped, because a program is missing: " + err.Error())
	case err != nil:
		return r, fmt.Errorf("the proxy: %w", err)
	}
	r.Took = time.Since(begin).Seconds()
	return r, failure
}
