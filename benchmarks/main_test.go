package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestBenchmarks_MeasureEveryQuestion runs everything briefly. The figures are
// meaningless.
func TestBenchmarks_MeasureEveryQuestion(t *testing.T) {
	r, err := measure(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	answered := map[string]bool{}
	for _, row := range r.Rows {
		answered[row.Question] = true
		if _, ok := row.Figures[ours]; !ok {
			t.Errorf("%q has no figure of entrapg's", row.Name)
		}
		for name := range row.Figures {
			if !known(name) {
				t.Errorf("%q has a figure of the unknown way %q", row.Name, name)
			}
		}
	}
	for _, q := range questions {
		if !answered[q.name] {
			t.Errorf("%q is not answered", q.name)
		}
	}
	if md := (report{r}).markdown(); strings.Count(md, "\n| ") < len(r.Rows) {
		t.Errorf("rows are missing in\n%s", md)
	}

	data, err := r.marshal()
	if err != nil {
		t.Fatal(err)
	}
	var again Results
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, &again) {
		t.Errorf("results.json differs from the results:\n%s", data)
	}

	svg, err := picture{&again}.svg()
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is not XML: %v", err)
		}
	}
}

// TestReport_FitsIntoTerminal uses the published results, because the width depends on the
// figures.
func TestReport_FitsIntoTerminal(t *testing.T) {
	data, err := os.ReadFile("results.json")
	if err != nil {
		t.Fatal(err)
	}
	r := new(Results)
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(report{r}.text()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 && !strings.Contains(line, r.Date) {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}

func TestBenchmarks_MeasureSessions(t *testing.T) {
	text, err := measureSessions(t.Context(), 20)
	if err != nil || !strings.HasPrefix(text, "20 sessions: ") {
		t.Errorf("%s, error %v", text, err)
	}
}

func known(name string) bool {
	for _, w := range ways {
		if w.name == name {
			return true
		}
	}
	return false
}
