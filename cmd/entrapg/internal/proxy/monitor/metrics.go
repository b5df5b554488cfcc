package monitor

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ContentType is the content type of Prometheus' text format:
// https://prometheus.io/docs/instrumenting/exposition_formats/
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Type is the type of a metric.
type Type string

// The types that Metrics can write.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	histogram Type = "histogram"
)

// Metrics writes metrics in Prometheus' text format. The zero value is empty.
type Metrics struct{ text []byte }

// A Sample is a value with the names and values of its labels in turn.
type Sample struct {
	Value  float64
	Labels []string
}

// Add adds a metric with its samples.
func (m *Metrics) Add(name string, t Type, help string, samples ...Sample) {
	if len(samples) == 0 {
		return
	}
	m.head(name, t, help)
	for _, s := range samples {
		m.sample(name, s.Value, s.Labels)
	}
}

// A Distribution is a histogram's value with the names and values of its labels in turn.
// Counts contains the count of each bucket, and the count of values above the last one.
type Distribution struct {
	Counts []int64
	Sum    time.Duration
	Labels []string
}

// AddHistogram adds a histogram of durations. bounds are the upper bounds of its buckets.
func (m *Metrics) AddHistogram(name, help string, bounds []time.Duration, values ...Distribution) {
	if len(values) == 0 {
		return
	}
	m.head(name, histogram, help)
	for _, v := range values {
		var below int64
		for i, bound := range append(bounds[:len(bounds):len(bounds)], 0) {
			if i < len(v.Counts) {
				below += v.Counts[i]
			}
			le := "+Inf"
			if i < len(bounds) {
				le = number(bound.Seconds())
			}
			m.sample(name+"_bucket", float64(below), append(v.Labels[:len(v.Labels):len(v.Labels)], "le", le))
		}
		m.sample(name+"_sum", v.Sum.Seconds(), v.Labels)
		m.sample(name+"_count", float64(below), v.Labels)
	}
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func (m *Metrics) head(name string, t Type, help string) {
	m.write("# HELP ", name, " ", helpEscaper.Replace(help), "\n# TYPE ", name, " ", string(t), "\n")
}

func (m *Metrics) sample(name string, value float64, labels []string) {
	m.write(name)
	for i := 0; i+1 < len(labels); i += 2 {
		separator := ","
		if i == 0 {
			separator = "{"
		}
		m.write(separator, labels[i], `="`, valueEscaper.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")), `"`)
	}
	if len(labels) > 0 {
		m.write("}")
	}
	m.write(" ", number(value), "\n")
}

func (m *Metrics) write(parts ...string) {
	for _, part := range parts {
		m.text = append(m.text, part...)
	}
}

func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
