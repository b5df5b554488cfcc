package monitor

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMetrics_WritesTextFormat(t *testing.T) {
	var m Metrics
	m.Add("up_total", Counter, "Counts \\ and\nmore.", Sample{Value: 3})
	m.Add("open", Gauge, "Open.", Sample{1.5, []string{"listener", "a\"b\\c\nd\xff", "upstream", "é"}}, Sample{1e9, []string{"listener", "x"}})
	m.Add("none", Gauge, "Has no samples.")
	m.AddHistogram("login_seconds", "Durations.", []time.Duration{50 * time.Millisecond, time.Second},
		Distribution{Counts: []int64{1, 2, 3}, Sum: 4500 * time.Millisecond, Labels: []string{"l", "a"}},
		Distribution{Labels: []string{"l", "b"}})
	want := `# HELP up_total Counts \\ and\nmore.
# TYPE up_total counter
up_total 3
# HELP open Open.
# TYPE open gauge
open{listener="a\"b\\c\nd�",upstream="é"} 1.5
open{listener="x"} 1000000000
# HELP login_seconds Durations.
# TYPE login_seconds histogram
login_seconds_bucket{l="a",le="0.05"} 1
login_seconds_bucket{l="a",le="1"} 3
login_seconds_bucket{l="a",le="+Inf"} 6
login_seconds_sum{l="a"} 4.5
login_seconds_count{l="a"} 6
login_seconds_bucket{l="b",le="0.05"} 0
login_seconds_bucket{l="b",le="1"} 0
login_seconds_bucket{l="b",le="+Inf"} 0
login_seconds_sum{l="b"} 0
login_seconds_count{l="b"} 0
`
	if string(m.text) != want {
		t.Errorf("got\n%s\nwant\n%s", m.text, want)
	}
	if err := validate(string(m.text)); err != nil {
		t.Error(err)
	}
}

func TestValidate_RejectsInvalidFormat(t *testing.T) {
	const head = "# HELP a_total A.\n# TYPE a_total counter\n"
	for _, text := range []string{
		"a_total 1\n", head + "a_total 1", head + "a_total one\n", head + "a_total{l=\"x} 1\n", head + "a_total{l=\"x\"} 1\na_total{l=\"x\"} 2\n",
		head + head + "a_total 1\n", head + "b_total 1\n", "# HELP a A.\n# TYPE a counter\na 1\n", head + "a_total -1\n",
		"# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\n",
		"# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_sum 1\nh_count 3\n",
	} {
		if validate(text) == nil {
			t.Errorf("accepted:\n%s", text)
		}
	}
}

func TestNumber_IsExact(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1795645460: "1795645460", 0.005: "0.005", 1 << 60: "1.152921504606847e+18", math.Inf(1): "+Inf"} {
		if got := number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

var (
	metricLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$`)
	lePair     = regexp.MustCompile(`,?le="([^"]*)"`)
)

// validate checks the text format strictly, and the conventions of Prometheus for
// names.
func validate(text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		return fmt.Errorf("the last line does not end")
	}
	name, kind := "", ""
	families, series := map[string]bool{}, map[string]float64{}
	last := map[string]float64{} // bucket of each series of a histogram
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "# HELP ") && len(words) == 4:
			name, kind = words[2], ""
			if families[name] {
				return fmt.Errorf("%s: twice", name)
			}
			families[name] = true
			continue
		case strings.HasPrefix(line, "# TYPE ") && len(words) == 4 && words[2] == name && kind == "":
			kind = words[3]
			if (kind == "counter") != strings.HasSuffix(name, "_total") {
				return fmt.Errorf("%s: a counter's name ends in _total, and no other", name)
			}
			continue
		}
		parts := metricLine.FindStringSubmatch(line)
		if parts == nil {
			return fmt.Errorf("invalid line %q", line)
		}
		value, err := strconv.ParseFloat(parts[3], 64)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		id := parts[1] + "{" + parts[2] + "}"
		if _, again := series[id]; again {
			return fmt.Errorf("%s: twice", id)
		}
		series[id] = value
		suffix, ours := strings.CutPrefix(parts[1], name)
		switch {
		case kind == "" || !ours || suffix != "" && kind != "histogram":
			return fmt.Errorf("%q: not of %q, type %q", line, name, kind)
		case kind != "gauge" && value < 0:
			return fmt.Errorf("%q: negative", line)
		case kind != "histogram":
			continue
		}
		labels := lePair.ReplaceAllString(parts[2], "")
		switch bucket := lePair.FindStringSubmatch(parts[2]); {
		case suffix == "_bucket" && bucket != nil:
			if value < last[name+labels] {
				return fmt.Errorf("%q: less than the bucket before", line)
			}
			last[name+labels] = value
			if bucket[1] == "+Inf" {
				last[name+labels+" all"] = value
			}
		case suffix == "_count":
			if all, ok := last[name+labels+" all"]; !ok || all != value {
				return fmt.Errorf("%q: not the bucket +Inf", line)
			}
		case suffix != "_sum":
			return fmt.Errorf("%q: not of a histogram", line)
		}
	}
	return nil
}
