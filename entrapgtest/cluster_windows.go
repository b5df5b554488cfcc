package entrapgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// An owner is the user that PostgreSQL runs as: the caller. Where that is an
// administrator, pg_ctl gives up the rights itself.
type owner struct{}

func newOwner() (*owner, error) { return &owner{}, nil }

func (*owner) give(...string) error { return nil }

func (*owner) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = environment()
	return cmd
}

// A process is a running server. On Windows nothing watches over it: it stays
// behind where its program is killed.
type process struct {
	pgctl   func(args ...string) error
	ended   chan struct{} // never closed: pg_ctl does not tell
	logFile string
}

func startPostgres(o *owner, bin, dir, data string) (*process, error) {
	p := &process{ended: make(chan struct{}), logFile: filepath.Join(dir, "log")}
	p.pgctl = func(args ...string) error {
		// To a file: the server inherits the output, and a pipe would stay open.
		said := filepath.Join(dir, "pg_ctl")
		out, err := os.Create(said)
		if err != nil {
			return err
		}
		defer out.Close()
		cmd := o.command(context.Background(), dir, filepath.Join(bin, "pg_ctl.exe"), append(args, "-D", data)...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("pg_ctl %s: %w: %s", args[0], err, tail(said))
		}
		return nil
	}
	return p, p.pgctl("start", "-W", "-s", "-l", p.logFile)
}

func (p *process) stop() error { return p.pgctl("stop", "-m", "immediate", "-s") }

func (p *process) restart() error {
	return p.pgctl("restart", "-m", "fast", "-W", "-s", "-l", p.logFile)
}

func (p *process) log() string { return tail(p.logFile) }
