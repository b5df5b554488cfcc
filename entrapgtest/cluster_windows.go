package entrapgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// An owner is the user that PostgreSQL runs as: the caller. If that is an administrator,
// pg_ctl drops the privileges.
type owner struct{}

func newOwner() (*owner, error) { return &owner{}, nil }

func (*owner) chown(...string) error { return nil }

// isOwn returns true: the file system's permissions apply.
func isOwn(string) (bool, error) { return true, nil }

// command returns a command that runs in its own process group, so that Ctrl-C in a
// console does not interrupt it.
func (*owner) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	return cmd
}

func (*owner) otherTempDirs() []string { return nil }

func (*owner) canEnter(context.Context, string) error { return nil }

// A tempDir is a temporary directory. It is not removed if this process is killed.
type tempDir struct{ path string }

func newTempDir(parent string) (*tempDir, error) {
	path, err := os.MkdirTemp(parent, "entrapg-")
	return &tempDir{path}, err
}

func (d *tempDir) confine(*exec.Cmd) {}

func (d *tempDir) remove() error { return os.RemoveAll(d.path) }

// initialize creates all files of an empty cluster, or none.
func (c *cluster) initialize(ctx context.Context, durable bool) error {
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(c.password), 0o600); err != nil {
		return err
	}
	args := []string{"--pwfile=" + passwordFile, "--auth=scram-sha-256"}
	if !durable {
		args = append(args, "--no-sync")
	}
	if err := c.initdb(ctx, c.data+newSuffix, args...); err != nil {
		return err
	}
	return errors.Join(os.Remove(passwordFile), os.Rename(c.data+newSuffix, c.data))
}

// A process is a running server. On Windows nothing supervises it: it continues to run
// if this process is killed.
type process struct {
	pgctl   func(args ...string) error
	mode    string // of a shutdown
	pidFile string
	logFile string

	ended chan struct{}
	err   error // set before ended is closed

	mu      sync.Mutex // held while the server is stopped or restarted
	stopped bool
}

func startPostgres(o *owner, bin, dir, data string, lock *os.File) (*process, error) {
	p := &process{
		ended: make(chan struct{}), logFile: filepath.Join(dir, "log"),
		pidFile: filepath.Join(data, "postmaster.pid"), mode: "immediate",
	}
	p.pgctl = func(args ...string) error {
		// To a file: the server inherits the output, and a pipe would stay open.
		output := filepath.Join(dir, "pg_ctl")
		out, err := os.Create(output)
		if err != nil {
			return err
		}
		defer out.Close()
		cmd := o.command(context.Background(), dir, filepath.Join(bin, "pg_ctl.exe"), append(args, "-D", data)...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("pg_ctl %s: %w: %s", args[0], err, tail(output))
		}
		return nil
	}
	if lock != nil {
		p.mode = "fast"
		if p.runs() { // the process that started it was killed
			if err := p.pgctl("stop", "-m", p.mode, "-s"); err != nil {
				return nil, err
			}
		}
	}
	if err := p.pgctl("start", "-W", "-s", "-l", p.logFile); err != nil {
		return nil, err
	}
	go p.watch()
	return p, nil
}

// watch closes ended when the server has exited, but not when it is restarted.
func (p *process) watch() {
	defer close(p.ended)
	pid := p.waitPID(0)
	for {
		if server, err := os.FindProcess(pid); err == nil {
			_, _ = server.Wait()
		}
		p.mu.Lock() // the server has been restarted, or stopped
		stopped, now := p.stopped, p.pid()
		p.mu.Unlock()
		if stopped {
			return
		}
		if now == 0 || now == pid {
			p.err = errors.New("it was not stopped by this process")
			return
		}
		pid = now
	}
}

// waitPID returns the process ID of a starting server. It waits until the ID differs from
// last.
func (p *process) waitPID(last int) int {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if pid := p.pid(); pid != 0 && pid != last {
			return pid
		}
	}
	return last
}

// pid returns the server's process ID, or 0 if it has not written one.
func (p *process) pid() int {
	content, err := os.ReadFile(p.pidFile)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(digits.FindString(string(content)))
	return pid
}

func (p *process) runs() bool { return p.pgctl("status", "-s") == nil }

func (p *process) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	err := p.pgctl("stop", "-m", p.mode, "-s")
	if err != nil && !p.runs() { // it had exited already
		return nil
	}
	return err
}

func (p *process) restart() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.pid()
	err := p.pgctl("restart", "-m", "fast", "-W", "-s", "-l", p.logFile)
	if err == nil {
		p.waitPID(last)
	}
	return err
}

func (p *process) log() string { return tail(p.logFile) }

// runs reports whether a process exists.
func runs(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	_ = p.Release()
	return true
}
