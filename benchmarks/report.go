package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// cells returns the table with its heading.
func (r *Results) cells() [][]string {
	heading := []string{"", "unit"}
	for _, w := range ways {
		heading = append(heading, w.name)
	}
	table := [][]string{append(heading, "ratio", "target", "verdict")}
	for _, row := range r.Rows {
		line := []string{row.Name, row.Unit}
		for _, w := range ways {
			if f, ok := row.Figures[w.name]; ok {
				line = append(line, f.String())
			} else {
				line = append(line, "–")
			}
		}
		ratio := "–"
		if row.Ratio != nil {
			ratio = fmt.Sprintf("%.3f", *row.Ratio)
		}
		table = append(table, append(line, ratio, orDash(row.Target), orDash(row.Verdict)))
	}
	return table
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// text returns the table for a terminal.
func (r *Results) text() string {
	table := r.cells()
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, line := range table {
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i < 2:
				out.WriteString(cell + pad)
			case i == len(line)-1:
				out.WriteString("  " + cell)
			default:
				out.WriteString(" " + pad + cell)
			}
			if i == 0 {
				out.WriteString(" ")
			}
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(&out, "\n%s; the run took %.0f s\n", r.Settings, r.Took)
	return out.String()
}

// markdown returns the table with explanations.
func (r *Results) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Results\n\nWritten by `make bench`: %s. The run took %.0f s. What it means: "+
		"[docs/performance.md](../docs/performance.md).\n\n", r.Settings, r.Took)
	for i, line := range r.cells() {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			out.WriteString("|---|---|" + strings.Repeat("---:|", len(line)-3) + "---|\n")
		}
	}
	out.WriteString("\nA ratio is entrapg's:\n\n")
	for _, row := range r.Rows {
		if row.Ratio != nil {
			fmt.Fprintf(&out, "- %s: to %s, the median of %d.\n", row.Name, row.Of, row.Rounds)
		}
	}
	out.WriteString("\n## The ways\n\n")
	for _, w := range ways {
		fmt.Fprintf(&out, "- **%s**: %s.\n", w.name, w.what)
	}
	out.WriteString("\n## How each is measured\n\n")
	for _, q := range questions {
		fmt.Fprintf(&out, "- **%s**: %s\n", q.name, q.how)
	}
	return out.String()
}

// parts returns the table of the parts of a Connect.
func (r *Results) parts() string {
	var out strings.Builder
	out.WriteString("| | ms | share |\n|---|---:|---:|\n")
	for _, p := range r.Anatomy {
		fmt.Fprintf(&out, "| %s | %s | %.3g %% |\n", p.Name, thousandths(p.Took), 100*p.Share)
	}
	fmt.Fprintf(&out, "\nMedians, which need not add up; %s.\n", r.Settings)
	return out.String()
}

func thousandths(ms float64) string {
	if ms < 0.001 {
		return fmt.Sprintf("%.6f", ms)
	}
	return fmt.Sprintf("%.3f", ms)
}
