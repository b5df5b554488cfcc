package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A report presents results in tables.
type report struct{ *Results }

// wayColumns are the columns of the table of ways.
func wayColumns() []string {
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	return names
}

// proxyColumns are the columns of the proxy's table.
var proxyColumns = []string{proxied, pgBouncer, direct}

// cells returns a table with its heading.
func cells(columns []string, rows []*Row) [][]string {
	heading := append([]string{"", "unit"}, columns...)
	table := [][]string{append(heading, "ratio", "target", "verdict")}
	for _, row := range rows {
		line := []string{row.Name, row.Unit}
		for _, column := range columns {
			if f, ok := row.Figures[column]; ok {
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

// text returns the tables for a terminal.
func (r report) text() string {
	var out strings.Builder
	out.WriteString(aligned(cells(wayColumns(), r.Rows)))
	if len(r.Proxy) > 0 {
		out.WriteString("\n" + aligned(cells(proxyColumns, r.Proxy)))
	}
	fmt.Fprintf(&out, "\n%s; the run took %.0f s\n", r.Settings, r.Took)
	return out.String()
}

func aligned(table [][]string) string {
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
	return out.String()
}

// markdown returns the table with explanations.
func (r report) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Results\n\nWritten by `make bench`: %s. The run took %.0f s. What it means: "+
		"[docs/performance.md](../docs/performance.md).\n\n", r.Settings, r.Took)
	out.WriteString(pipes(cells(wayColumns(), r.Rows)))
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
	if len(r.Proxy) > 0 {
		out.WriteString("\n## The proxy\n\n" + pipes(cells(proxyColumns, r.Proxy)) + "\n" + proxyHow + "\n")
	}
	return out.String()
}

func pipes(table [][]string) string {
	var out strings.Builder
	for i, line := range table {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			out.WriteString("|---|---|" + strings.Repeat("---:|", len(line)-3) + "---|\n")
		}
	}
	return out.String()
}

const proxyHow = "PostgreSQL has TLS and requests a cleartext password. PgBouncer pools sessions. PgBouncer and the proxy each " +
	"use one core at most, connect to PostgreSQL with verify-full and log in with a password, because PgBouncer does not " +
	"support tokens. Clients connect to them without TLS, and to PostgreSQL directly with TLS. pgbench and psql run on the " +
	"same machine. The three alternate; the ratio is that of the proxy to PgBouncer, the median of three rounds. With " +
	"`-C`, pgbench logs in for each transaction: the proxy logs in to PostgreSQL each time, PgBouncer reuses a session. " +
	"The memory of an idle session is the growth of the process's resident memory with 1,000 sessions; in the column " +
	"direct, it is the heap of one of Go's TLS connections."

// parts returns the table of the parts of a Connect.
func (r report) parts() string {
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
