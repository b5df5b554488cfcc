package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Results are the results of a run.
type Results struct {
	Settings
	Rows     []*Row    `json:"rows"`
	Proxy    []*Row    `json:"proxy,omitempty"`
	Anatomy  []Part    `json:"anatomy"`
	Timeline *Timeline `json:"timeline"`
}

// Settings describe the machine and the time of a run.
type Settings struct {
	Date       string  `json:"date"`
	Go         string  `json:"go"`
	Platform   string  `json:"platform"`
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	PostgreSQL string  `json:"postgresql"`
	Took       float64 `json:"took"` // seconds
}

func (s Settings) String() string {
	return fmt.Sprintf("%s, Go %s, PostgreSQL %s, %s, %d CPUs (%s), server and clients in one process",
		s.Date, s.Go, s.PostgreSQL, s.Platform, s.CPUs, s.CPU)
}

func settings(ctx context.Context, b *bench) (Settings, error) {
	s := Settings{
		Date: time.Now().UTC().Format(time.DateOnly), Go: strings.TrimPrefix(runtime.Version(), "go"),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpu(), CPUs: runtime.GOMAXPROCS(0),
	}
	conn, err := pgx.Connect(ctx, b.server.AdminDSN())
	if err != nil {
		return s, err
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "show server_version").Scan(&version); err != nil {
		return s, err
	}
	s.PostgreSQL, _, _ = strings.Cut(version, " ")
	return s, nil
}

var modelName = regexp.MustCompile(`(?m)^model name\s*: (.+)$`)

// cpu returns the name of the processor, if the system knows it.
func cpu() string {
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := modelName.FindSubmatch(info); m != nil {
			return string(m[1])
		}
	}
	if out, err := exec.Command("sysctl", "-n", "machdep.cpu.brand_string").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return "unnamed"
}

// marshal writes results with a line for each row, so that two runs can be compared.
func (r *Results) marshal() ([]byte, error) {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	// Otherwise, each connect would take three lines.
	return append(triple.ReplaceAll(out, []byte("[$1, $2, $3]")), '\n'), nil
}

var triple = regexp.MustCompile(`\[\s+([\d.]+),\s+([\d.]+),\s+([\d.]+)\s+\]`)
