package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// The token step is no exported thing, so that the root package's own benchmark
// measures it, and what it says is read here.
var tokenStep = question{
	name: "token step with a fresh token",
	how: "BenchmarkTokenStep of the root package, with one goroutine and with 64: what Connect does to have a token, " +
		"in turns with one clock reading and one atomic load (in the column static), which is the least it can be; medians of pairs. " +
		"Per call is wall time divided by calls.",
	ask: askTokenStep,
}

func askTokenStep(ctx context.Context, b *bench) ([]*Row, error) {
	const limit = 1.3
	single := &Row{Name: "token step", Unit: "ns"}
	crowd := &Row{Name: "token step, 64 goroutines", Unit: "ns"}
	against := &Row{Name: "the same, beside one goroutine", Unit: "ns"}
	allocations := &Row{Name: "allocations of a token step", Unit: "n"}

	var ratios, crowdRatios, crowdBeside []float64
	for range pick(b, 3, 1) { // the benchmark's ratios are medians already
		out, err := goTest(ctx, pick(b, "0.3s", "1x"))
		if err != nil {
			return nil, err
		}
		if ratios, err = out.collect(ratios, "ratio", "×floor"); err != nil {
			return nil, err
		}
		if crowdRatios, err = out.collect(crowdRatios, "parallel", "×floor"); err != nil {
			return nil, err
		}
		if crowdBeside, err = out.collect(crowdBeside, "parallel", "×one"); err != nil {
			return nil, err
		}
		if single.Figures, err = out.figures("ratio", "ns/token", "ns/floor"); err != nil {
			return nil, err
		}
		if crowd.Figures, err = out.figures("parallel", "ns/token", "ns/floor"); err != nil {
			return nil, err
		}
		allocated, err := out.metric("token", "allocs/op")
		if err != nil {
			return nil, err
		}
		allocations.Figures = map[string]Figure{ours: {Value: allocated}}
	}
	against.Figures = map[string]Figure{ours: crowd.Figures[ours]}
	single.atMost(limit, "clock and load", ratios)
	crowd.atMost(limit, "clock and load by 64", crowdRatios)
	against.atMost(1, "one goroutine", crowdBeside)
	allocations.valueAtMost(0)
	return []*Row{single, crowd, against, allocations}, nil
}

// benchmarks is what go test prints.
type benchmarks []byte

func goTest(ctx context.Context, benchtime string) (benchmarks, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkTokenStep$", "-benchtime", benchtime, ".")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return out, nil
}

// metric reads one of a sub-benchmark's metrics.
func (out benchmarks) metric(name, unit string) (float64, error) {
	line := regexp.MustCompile(`(?m)^BenchmarkTokenStep/` + name + `(-\d+)?\s.*$`).Find(out)
	fields := bytes.Fields(line)
	for i, field := range fields {
		if string(field) == unit {
			return strconv.ParseFloat(string(fields[i-1]), 64)
		}
	}
	return 0, fmt.Errorf("BenchmarkTokenStep/%s tells no %s:\n%s", name, unit, out)
}

func (out benchmarks) collect(values []float64, name, unit string) ([]float64, error) {
	value, err := out.metric(name, unit)
	return append(values, value), err
}

func (out benchmarks) figures(name, unit, floorUnit string) (map[string]Figure, error) {
	own, err := out.metric(name, unit)
	if err != nil {
		return nil, err
	}
	least, err := out.metric(name, floorUnit)
	return map[string]Figure{ours: {Value: own}, floor: {Value: least}}, err
}
