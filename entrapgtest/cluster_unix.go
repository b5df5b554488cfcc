//go:build !windows

package entrapgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// initialize creates all files of an empty cluster, or none. Those of a throwaway
// PostgreSQL are copied from a template if there is one, which is much faster than
// initdb.
func (c *cluster) initialize(ctx context.Context, durable bool) error {
	data := c.data + newSuffix
	var t *template
	made := false
	if !durable {
		t = findTemplate(ctx, c.bin)
		made = t.copyTo(data, c.owner) == nil && c.setPassword(ctx, data) == nil
	}
	if !made {
		if err := t.discard(data); err != nil {
			return err
		}
		args := append([]string{}, initdbArgs...)
		if !durable {
			args = append(args, "--no-sync")
		}
		if err := c.initdb(ctx, data, args...); err != nil {
			return err
		}
		t.store(data) // without a password
		if err := c.setPassword(ctx, data); err != nil {
			return err
		}
	}
	hba := filepath.Join(data, "pg_hba.conf")
	const scram = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"
	if err := os.WriteFile(hba, []byte(scram), 0o600); err != nil {
		return err
	}
	return os.Rename(data, c.data)
}

// initdbArgs create a cluster with small WAL files that rejects every login, because the
// superuser has no password yet.
var initdbArgs = []string{"--auth=reject", "--wal-segsize=1"}

// setPassword sets the superuser's password. It sends it over standard input, not in a
// file or an argument.
func (c *cluster) setPassword(ctx context.Context, data string) error {
	cmd := c.owner.command(ctx, c.dir, filepath.Join(c.bin, "postgres"), "--single", "-F", "-D", data,
		"-c", "exit_on_error=true", "-c", "log_checkpoints=off", "-c", "password_encryption=scram-sha-256", "postgres")
	cmd.Stdin = strings.NewReader("alter role postgres password '" + c.password + "'\n")
	return c.run(cmd)
}

// An owner is the user that PostgreSQL runs as: the caller, but never root.
type owner struct{ credential *syscall.Credential }

func newOwner() (*owner, error) {
	if os.Geteuid() != 0 {
		return &owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &owner{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return nil, fmt.Errorf("PostgreSQL does not run as root, and neither a user postgres nor nobody exists; " +
		"run as another user")
}

// isOwn reports whether a directory belongs to the caller or, if the caller is root, to
// the user that PostgreSQL runs as.
func isOwn(dir string) (bool, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return true, nil
	}
	o, err := newOwner()
	return err == nil && o.credential != nil && o.credential.Uid == stat.Uid, err
}

// chown changes the owner of files that root has created.
func (o *owner) chown(paths ...string) error {
	if o.credential == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(o.credential.Uid), int(o.credential.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// command returns a command that runs in its own process group, so that Ctrl-C on a
// terminal does not interrupt it.
func (o *owner) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.credential, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with its children
	return cmd
}

// otherTempDirs are used if TMPDIR is not suitable.
func (o *owner) otherTempDirs() []string { return []string{"/tmp", "/var/tmp"} }

// canEnter returns an error if the owner cannot use a directory, for example because
// only root can enter its parent.
func (o *owner) canEnter(ctx context.Context, dir string) error {
	if o.credential == nil {
		return nil
	}
	if err := o.command(ctx, "/", "/bin/sh", "-c", `cd "$1"`, "sh", dir).Run(); err != nil {
		return fmt.Errorf("PostgreSQL runs as user %d, who cannot enter %s", o.credential.Uid, dir)
	}
	return nil
}

// A tempDir is a temporary directory. A child process, the keeper, creates it, and
// removes it if this process ends without doing so.
type tempDir struct {
	path    string
	keeper  *exec.Cmd
	running io.Closer // standard input of keeper
}

// keep waits for the end of its standard input, which is closed when the parent process
// exits or is killed. It then stops the programs of its process group. It retries the
// removal because they may still write for a moment.
const keep = `
trap '' PIPE
mkdir -m 700 "$1" || exit
echo
read -r _
trap '' TERM
kill -TERM 0
i=0
while [ -e "$1" ] && [ $i -lt 600 ]; do
	rm -rf "$1" 2>/dev/null || sleep 0.1
	i=$((i + 1))
done
`

func newTempDir(parent string) (*tempDir, error) {
	path := filepath.Join(parent, "entrapg-"+strings.ToLower(rand.Text()[:12]))
	d := &tempDir{path: path, keeper: exec.Command("/bin/sh", "-c", keep, "entrapgtest", path)}
	d.keeper.Dir = "/"
	d.keeper.Env = environment()
	d.keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var output bytes.Buffer
	d.keeper.Stderr = &output
	stdin, err := d.keeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := d.keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.keeper.Start(); err != nil {
		return nil, err
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // it has exited
		stdin.Close()
		return nil, fmt.Errorf("%w: %s", d.keeper.Wait(), bytes.TrimSpace(output.Bytes()))
	}
	d.running = stdin
	return d, nil
}

// confine makes a program stop if this process ends before it does.
func (d *tempDir) confine(cmd *exec.Cmd) {
	cmd.SysProcAttr.Pgid = d.keeper.Process.Pid
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
}

func (d *tempDir) remove() error {
	err := os.RemoveAll(d.path)
	d.running.Close()
	_ = d.keeper.Wait()
	if _, missing := os.Lstat(d.path); errors.Is(missing, os.ErrNotExist) {
		return nil // the keeper has removed what the first attempt could not
	}
	return err
}

// A process is a running server and the shell that supervises it.
type process struct {
	stdin   io.WriteCloser
	ended   chan struct{}
	err     error // set before ended is closed
	logFile string
}

// watch runs the server. When its standard input is closed, because the parent process
// has exited or was killed, it stops the server with the signal in $2. The server's exit
// code is then 0 after a shutdown, 2 after SIGQUIT, or 131 if SIGQUIT arrives before the
// server handles it. A line on standard input restarts the server; the watcher's exit
// code is then 10.
const watch = `
dir=$1 stop=$2; shift 2
exec 4<&0
again=10
while [ $again = 10 ]; do
	"$@" >>"$dir/log" 2>&1 </dev/null 4<&- &
	server=$!
	(if read -r _; then kill -INT $server; exit 10; else kill -$stop $server; fi) <&4 4<&- 2>/dev/null &
	watcher=$!
	wait $server
	code=$?
	kill $watcher 2>/dev/null
	wait $watcher 2>/dev/null
	again=$?
done
case $code in 0|2|131) exit 0;; esac
exit $code
`

// startPostgres starts the server. A lock means that the data is kept: the server is
// stopped with a checkpoint, and holds the lock until it has exited.
func startPostgres(o *owner, bin, dir, data string, lock *os.File) (*process, error) {
	p := &process{ended: make(chan struct{}), logFile: filepath.Join(dir, "log")}
	// The caller's context bounds only the start.
	stop := "QUIT"
	if lock != nil {
		stop = "INT"
	}
	cmd := o.command(context.Background(), dir, "/bin/sh", "-c", watch, "entrapgtest", dir, stop,
		filepath.Join(bin, "postgres"), "-D", data)
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

func (p *process) stop() error {
	p.stdin.Close()
	<-p.ended
	return p.err
}

// restart makes the shell stop the server with a fast shutdown and start it again.
func (p *process) restart() error {
	_, err := io.WriteString(p.stdin, "\n")
	return err
}

func (p *process) log() string { return tail(p.logFile) }

// runs reports whether a process exists.
func runs(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
