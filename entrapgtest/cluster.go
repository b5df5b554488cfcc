package entrapgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A cluster is a throwaway PostgreSQL. It listens on a Unix socket in a directory
// that no other user of the machine can enter. Its data is there too, or in a
// StateDir.
type cluster struct {
	dir      string
	password string // of the superuser
	dsn      string // of the superuser
	process  *process

	restarting sync.Mutex
}

// startCluster starts a cluster with the data of a state or, if primary is not nil,
// a streaming replica of that one.
func startCluster(ctx context.Context, st *state, primary *cluster) (_ *cluster, err error) {
	bin, err := findPostgres()
	if err == nil {
		bin, err = st.suitable(ctx, bin)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "entrapg-")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	owner, err := newOwner()
	if err != nil {
		return nil, err
	}
	if err := owner.give(dir); err != nil {
		return nil, err
	}

	data := filepath.Join(dir, dataDir)
	if primary == nil {
		c.password = st.Seed.secret("superuser")
		if st.dir != "" {
			data = filepath.Join(st.dir, dataDir)
			err = st.prepareData(owner)
		}
		if _, missing := os.Stat(data); missing != nil && err == nil {
			err = initialize(ctx, owner, bin, dir, data, c.password, st.dir != "")
		}
	} else {
		c.password = primary.password
		err = copyFrom(ctx, owner, bin, dir, data, primary)
	}
	if err != nil {
		return nil, err
	}
	c.dsn = fmt.Sprintf("host='%s' port=5432 user=postgres password=%s dbname=postgres sslmode=disable", quote(dir), c.password)
	if err := configure(owner, data, dir, st.dir != ""); err != nil {
		return nil, err
	}
	if c.process, err = startPostgres(owner, bin, dir, data, st.lock); err != nil {
		return nil, err
	}
	_, err = c.await(ctx, "")
	return c, err
}

// initialize makes the files of an empty cluster, all or none.
func initialize(ctx context.Context, owner *owner, bin, dir, data, password string, durable bool) error {
	passwordFile := filepath.Join(dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return err
	}
	if err := owner.give(passwordFile); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + data + newSuffix, "--username=postgres", "--pwfile=" + passwordFile, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C",
	}
	if !durable {
		args = append(args, "--no-sync")
	}
	initdb := owner.command(ctx, dir, filepath.Join(bin, program("initdb")), args...)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb of %s: %w: %s", bin, err, bytes.TrimSpace(out))
	}
	return errors.Join(os.Remove(passwordFile), os.Rename(data+newSuffix, data))
}

// copyFrom makes the files of a replica that will follow primary.
func copyFrom(ctx context.Context, owner *owner, bin, dir, data string, primary *cluster) error {
	// Where bin has links to some of the programs only, the rest is where they lead.
	path := filepath.Join(bin, program("pg_basebackup"))
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(filepath.Dir(resolve(filepath.Join(bin, program("postgres")))), program("pg_basebackup"))
	}
	backup := owner.command(ctx, dir, path,
		"--pgdata="+data, "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password",
		"--host="+primary.dir, "--port=5432", "--username=postgres")
	// In a file, because sessions can see what the replica's settings contain.
	passwordFile := filepath.Join(dir, "primary.pgpass")
	if err := os.WriteFile(passwordFile, []byte("*:*:*:*:"+primary.password), 0o600); err != nil {
		return err
	}
	if err := owner.give(passwordFile); err != nil {
		return err
	}
	backup.Env = append(backup.Env, "PGPASSFILE="+passwordFile)
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup of %s: %w: %s", bin, err, bytes.TrimSpace(out))
	}
	return nil
}

// configure has the server listen in dir alone. A throwaway trades durability,
// which it has no use for, for speed.
func configure(owner *owner, data, dir string, durable bool) error {
	const name = "entrapgtest.conf"
	settings := fmt.Sprintf(`listen_addresses = ''
unix_socket_directories = '%s'
unix_socket_permissions = 0700
max_connections = 300
`, strings.ReplaceAll(filepath.ToSlash(dir), "'", "''"))
	if !durable {
		settings += "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
	}
	path := filepath.Join(data, name)
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return err
	}
	if err := owner.give(path); err != nil {
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

// restart stops the server, which breaks its sessions off, and starts it again.
func (c *cluster) restart(ctx context.Context) error {
	c.restarting.Lock()
	defer c.restarting.Unlock()
	before, err := c.await(ctx, "")
	if err != nil {
		return err
	}
	if err := c.process.restart(); err != nil {
		return err
	}
	_, err = c.await(ctx, before)
	return err
}

// await waits until the server takes connections, and returns when it started:
// another time than before.
func (c *cluster) await(ctx context.Context, before string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		started, err := c.started(ctx)
		if err == nil && started != before {
			return started, nil
		}
		select {
		case <-c.process.ended:
			return "", fmt.Errorf("PostgreSQL ended as soon as it started: %s", c.process.log())
		case <-ctx.Done():
			return "", fmt.Errorf("PostgreSQL does not take connections: %w: %s", errors.Join(err, ctx.Err()), c.process.log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// started asks the server when it started.
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
	var err error
	if c.process != nil {
		err = c.process.stop()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// quote escapes a value for a DSN of keywords.
func quote(s string) string { return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) }

func program(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}

// places are where packages put PostgreSQL's programs. scripts/install-postgres.sh
// looks in the same ones.
var places = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // Red Hat, from PostgreSQL's own repository
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/Library/PostgreSQL/*/bin",                          // the installer for macOS
	`C:\Program Files\PostgreSQL\*\bin`,                  // the installer for Windows
}

// findPostgres returns the directory that holds PostgreSQL's programs.
func findPostgres() (string, error) {
	if dir := os.Getenv("ENTRAPG_POSTGRES_BIN"); dir != "" {
		if !holdsPostgres(dir) {
			return "", fmt.Errorf("ENTRAPG_POSTGRES_BIN: %s does not hold PostgreSQL's programs initdb and postgres", dir)
		}
		return filepath.Abs(dir)
	}
	for _, name := range []string{"initdb", "postgres"} {
		path, err := exec.LookPath(program(name))
		if err != nil {
			continue
		}
		for _, path := range []string{path, resolve(path)} {
			if dir := filepath.Dir(path); holdsPostgres(dir) {
				return filepath.Abs(dir)
			}
		}
	}
	if found := installed(); len(found) > 0 {
		return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
	}
	return "", errors.New("PostgreSQL's programs initdb and postgres are not installed: " +
		"`apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora, Red Hat), `brew " +
		"install postgresql` (macOS), " +
		"or https://www.postgresql.org/download/; where they are elsewhere than usual, set ENTRAPG_POSTGRES_BIN to their directory")
}

// installed returns the directories of PostgreSQL's programs in the usual places.
func installed() []string {
	var found []string
	for _, place := range places {
		dirs, _ := filepath.Glob(place)
		found = append(found, slices.DeleteFunc(dirs, func(dir string) bool { return !holdsPostgres(dir) })...)
	}
	return found
}

func holdsPostgres(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program(name))); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

func resolve(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

var digits = regexp.MustCompile(`\d+`)

// version reads the major version from a directory's name, 0 where it has none.
func version(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(filepath.Base(filepath.Dir(dir))))
	return n
}

// environment is what PostgreSQL's programs get to see of this process's own:
// neither PG* variables, which would change what they do, nor secrets.
func environment() []string {
	var kept []string
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "SystemRoot", "TEMP", "TMP"} {
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
