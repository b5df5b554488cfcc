package entrapgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A cluster is a throwaway PostgreSQL in its own directory. It listens on a Unix socket
// in that directory, which other users of the machine cannot access.
type cluster struct {
	bin, dir, data string
	password       string // of the superuser
	dsn            string // of the superuser
	owner          *owner
	lock           *os.File
	dirs           []*tempDir

	restarting sync.Mutex

	mu      sync.Mutex // guards process, which a restart can replace
	process *process
}

// startCluster starts a cluster with the data of st or, if primary is not nil, a
// streaming replica of primary.
func startCluster(ctx context.Context, st *state, primary *cluster) (_ *cluster, err error) {
	c := &cluster{lock: st.lock}
	if c.bin, err = findPostgres(); err == nil {
		c.bin, err = st.binFor(ctx, c.bin)
	}
	if err != nil {
		return nil, err
	}
	if c.owner, err = newOwner(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.dir, err = c.tempDir(0); err != nil {
		return nil, err
	}
	sockets := c.dir
	if len(sockets) > maxSocketDir {
		if sockets, err = c.tempDir(maxSocketDir); err != nil {
			return nil, err
		}
	}

	c.data = filepath.Join(c.dir, dataDir)
	if primary == nil {
		c.password = st.Seed.secret("superuser")
		if st.dir != "" {
			c.data = filepath.Join(st.dir, dataDir)
			if err = st.prepareData(c.owner); err == nil {
				err = c.owner.canEnter(ctx, st.dir)
			}
		}
		if _, missing := os.Stat(c.data); missing != nil && err == nil {
			err = c.initialize(ctx, st.dir != "")
		}
	} else {
		c.password = primary.password
		err = c.copyFrom(ctx, primary)
	}
	if err != nil {
		return nil, err
	}
	c.dsn = fmt.Sprintf("host='%s' port=5432 user=postgres password=%s dbname=postgres sslmode=disable",
		quote(sockets), c.password)
	for _, d := range defaults(c.dir) {
		if d.key != "user" {
			c.dsn += fmt.Sprintf(" %s='%s'", d.key, quote(d.value))
		}
	}
	if _, err := pgconn.ParseConfig(c.dsn); err != nil {
		return nil, err
	}
	if err := configure(c.owner, c.data, sockets, st.dir != ""); err != nil {
		return nil, err
	}
	if err := c.start(); err != nil {
		return nil, err
	}
	_, err = c.waitReady(ctx, "")
	return c, err
}

// maxSocketDir is the longest path of a directory for the Unix socket: an address has
// 104 bytes on macOS, and a few more elsewhere.
const maxSocketDir = 104 - len("/.s.PGSQL.5432") - 1

// tempDir creates a temporary directory that the owner can enter. If length is not 0,
// it bounds the bytes of the path.
func (c *cluster) tempDir(length int) (string, error) {
	var errs []error
	for i, parent := range append([]string{os.TempDir()}, c.owner.otherTempDirs()...) {
		if i > 0 && parent == os.TempDir() {
			continue
		}
		dir, err := newTempDir(parent)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		switch {
		case length > 0 && len(dir.path) > length:
			err = fmt.Errorf("%s is too long for a Unix socket", dir.path)
		default:
			if err = c.owner.chown(dir.path); err == nil {
				err = c.owner.canEnter(context.Background(), dir.path)
			}
		}
		if err == nil {
			c.dirs = append(c.dirs, dir)
			return dir.path, nil
		}
		errs = append(errs, err, dir.remove())
	}
	return "", fmt.Errorf("no temporary directory for PostgreSQL: %w; set TMPDIR to another one", errors.Join(errs...))
}

// start starts the server.
func (c *cluster) start() error {
	p, err := startPostgres(c.owner, c.bin, c.dir, c.data, c.lock)
	if p != nil {
		c.mu.Lock()
		c.process = p
		c.mu.Unlock()
	}
	return err
}

// current returns the server's process.
func (c *cluster) current() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// run runs one of PostgreSQL's programs.
func (c *cluster) run(cmd *exec.Cmd) error {
	c.dirs[0].confine(cmd)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := string(bytes.TrimSpace(out))
	if strings.Contains(text, "could not look up effective user ID") {
		text += "; PostgreSQL requires an entry for its user in /etc/passwd: " +
			"add one, run as another user, or set Config.Upstream"
	}
	return fmt.Errorf("%s: %w: %s", cmd.Path, err, text)
}

// initdb creates the files of an empty cluster. args are additional arguments.
func (c *cluster) initdb(ctx context.Context, data string, args ...string) error {
	args = append([]string{"--pgdata=" + data, "--username=postgres", "--encoding=UTF8", "--locale=C"}, args...)
	return c.run(c.owner.command(ctx, c.dir, filepath.Join(c.bin, program("initdb")), args...))
}

// copyFrom creates the files of a replica of primary.
func (c *cluster) copyFrom(ctx context.Context, primary *cluster) error {
	// bin can contain links to only some of the programs. The others are next to the targets.
	path := filepath.Join(c.bin, program("pg_basebackup"))
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(filepath.Dir(resolve(filepath.Join(c.bin, program("postgres")))), program("pg_basebackup"))
	}
	config, err := pgconn.ParseConfig(primary.dsn)
	if err != nil {
		return err
	}
	backup := c.owner.command(ctx, c.dir, path,
		"--pgdata="+c.data, "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password",
		"--host="+config.Host, "--port=5432", "--username=postgres")
	// The password is in a file, because sessions can read primary_conninfo.
	passwordFile := filepath.Join(c.dir, "primary.pgpass")
	if err := os.WriteFile(passwordFile, []byte("*:*:*:*:"+primary.password), 0o600); err != nil {
		return err
	}
	if err := c.owner.chown(passwordFile); err != nil {
		return err
	}
	backup.Env = append(backup.Env, "PGPASSFILE="+passwordFile)
	return c.run(backup)
}

// configure makes the server listen only in dir. Without durable, it turns off fsync and
// full-page writes for speed.
func configure(owner *owner, data, dir string, durable bool) error {
	const name = "entrapgtest.conf"
	settings := fmt.Sprintf(`listen_addresses = ''
unix_socket_directories = '%s'
unix_socket_permissions = 0700
max_connections = 300
wal_level = logical
`, strings.ReplaceAll(filepath.ToSlash(dir), "'", "''"))
	if !durable {
		settings += "fsync = off\nfull_page_writes = off\n"
	}
	path := filepath.Join(data, name)
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return err
	}
	if err := owner.chown(path); err != nil {
		return err
	}
	path = filepath.Join(data, "postgresql.conf")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	include := "\ninclude '" + name + "'\n"
	if bytes.Contains(content, []byte(include)) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(include)
	return errors.Join(err, f.Close())
}

// restart stops the server, which ends its sessions, and starts it again. If the server
// was killed, restart only starts it.
func (c *cluster) restart(ctx context.Context) error {
	c.restarting.Lock()
	defer c.restarting.Unlock()
	select {
	case <-c.current().ended:
		return c.startAgain(ctx)
	default:
	}
	before, err := c.waitReady(ctx, "")
	if err != nil {
		return err
	}
	if err := c.current().restart(); err != nil {
		return err
	}
	_, err = c.waitReady(ctx, before)
	return err
}

// startAgain starts a server that has exited. It retries because the old server's remaining
// processes can use the shared memory for a moment.
func (c *cluster) startAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := c.start()
		if err == nil {
			_, err = c.waitReady(ctx, "")
		}
		if err == nil || sleep(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}

// waitReady waits until the server accepts connections and its start time differs from
// before. It returns the start time.
func (c *cluster) waitReady(ctx context.Context, before string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		started, err := c.started(ctx)
		if err == nil && started != before {
			return started, nil
		}
		select {
		case <-c.current().ended:
			return "", fmt.Errorf("PostgreSQL exited during startup: %s", c.current().log())
		case <-ctx.Done():
			return "", fmt.Errorf("PostgreSQL does not accept connections: %w: %s",
				errors.Join(err, ctx.Err()), c.current().log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// started queries the start time of the server.
func (c *cluster) started(ctx context.Context) (string, error) {
	conn, err := pgconn.Connect(ctx, c.dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, "select extract(epoch from pg_postmaster_start_time())").ReadAll()
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

func (c *cluster) stop() error {
	var errs []error
	if p := c.current(); p != nil {
		err := p.stop()
		if err != nil {
			c.releaseMemory()
		}
		errs = append(errs, err)
	}
	for _, dir := range c.dirs {
		errs = append(errs, dir.remove())
	}
	return errors.Join(errs...)
}

// releaseMemory releases the shared memory of a server that was killed. PostgreSQL does
// so when it starts with the same data.
func (c *cluster) releaseMemory() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := c.run(c.owner.command(ctx, c.dir, filepath.Join(c.bin, program("postgres")), "--single", "-D", c.data, "postgres"))
		// The old server's remaining processes can use it for a moment.
		if err == nil || !strings.Contains(err.Error(), "still in use") || sleep(ctx, 10*time.Millisecond) != nil {
			return
		}
	}
}

// quote escapes a value for a keyword/value DSN.
func quote(s string) string { return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) }

// environment returns the environment for PostgreSQL's programs. It contains neither
// PG* variables, which would change their behavior, nor secrets. PATH also contains the
// system's programs.
func environment() []string {
	path := os.Getenv("PATH")
	if runtime.GOOS != "windows" {
		path = strings.TrimPrefix(path+":/usr/bin:/bin", ":")
	}
	kept := []string{"PATH=" + path}
	for _, name := range []string{"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "SystemRoot", "TEMP", "TMP"} {
		if v, ok := os.LookupEnv(name); ok {
			kept = append(kept, name+"="+v)
		}
	}
	return kept
}

// tail returns the end of a log file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "no log: " + err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-2000):]))
}
