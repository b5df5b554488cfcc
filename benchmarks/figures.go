package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// A Row is one line of the table: a figure for each way, and their comparison.
type Row struct {
	Question string            `json:"question"`
	Name     string            `json:"name"`
	Unit     string            `json:"unit"`
	Figures  map[string]Figure `json:"figures"` // by the way's name; missing if the question does not apply

	// Ratio is entrapg's figure divided by the one that Of names.
	Ratio   *float64 `json:"ratio,omitempty"`
	Of      string   `json:"of,omitempty"`
	Target  string   `json:"target,omitempty"`
	Verdict string   `json:"verdict,omitempty"`
	Rounds  int      `json:"rounds,omitempty"` // the ratio is their median
}

// A Figure is a number, or a word that replaces it in the table.
type Figure struct {
	Value float64 `json:"value"`
	Word  string  `json:"word,omitempty"`
}

const (
	met    = "met"
	notMet = "NOT MET"
)

// atMost sets the ratio to the median of rounds, and its target.
func (r *Row) atMost(limit float64, of string, rounds []float64) {
	r.compare(of, rounds)
	r.Target = fmt.Sprintf("≤ %.4g×", limit)
	r.judge(*r.Ratio <= limit)
}

// atLeast is atMost with a lower limit.
func (r *Row) atLeast(limit float64, of string, rounds []float64) {
	r.compare(of, rounds)
	r.Target = fmt.Sprintf("≥ %.4g×", limit)
	r.judge(*r.Ratio >= limit)
}

// compare sets the ratio without a target.
func (r *Row) compare(of string, rounds []float64) {
	ratio := median(rounds)
	r.Ratio, r.Of, r.Rounds = &ratio, of, len(rounds)
}

// valueAtMost sets a target for entrapg's figure.
func (r *Row) valueAtMost(limit float64) {
	r.Target = fmt.Sprintf("≤ %.4g", limit)
	r.judge(r.Figures[ours].Value <= limit)
}

func (r *Row) judge(ok bool) {
	if r.Verdict = notMet; ok {
		r.Verdict = met
	}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile returns the smallest value that the given share of values does not
// exceed.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// String formats the figure for a column.
func (f Figure) String() string {
	switch v := f.Value; {
	case f.Word != "":
		return f.Word
	case v == math.Trunc(v) || math.Abs(v) >= 1000:
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
