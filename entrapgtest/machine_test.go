//go:build !windows

package entrapgtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// temporary creates a directory for temporary files, and makes this process use it.
func temporary(t testing.TB, name string) string {
	t.Helper()
	dir := enterable(t, name)
	t.Setenv("TMPDIR", dir)
	return dir
}

// enterable creates a directory that PostgreSQL's user can enter.
func enterable(t testing.TB, name string) string {
	t.Helper()
	parent := must[string](t)(os.MkdirTemp("", "m"))
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o711); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkServerWorks starts a server and logs in to it with its DSN, with entrapg and with
// pgx alone.
func checkServerWorks(t testing.TB) {
	t.Helper()
	s := start(t, entrapgtest.Config{})
	alice := s.Tenant.NewUser("alice@contoso.example")
	createRole(t, s, "", alice)
	connector := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(alice), entrapg.WithLogger(nil))
	defer connector.Close()
	conn, err := connector.Connect(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", s.DSN(), err)
	}
	conn.Close()
	if admin(t, s, "select session_user::text") != "postgres" {
		t.Errorf("%s is not the superuser", s.AdminDSN())
	}
	if _, err := session(t, s, alice); err != nil {
		t.Errorf("%s with pgx: %v", s.DSN(), err)
	}
	logins := s.Logins()
	for _, l := range logins {
		if l.User != alice.Name || l.Application != "" || l.Database != "postgres" {
			t.Errorf("login: %+v", l)
		}
	}
	if len(logins) != 2 {
		t.Errorf("%d logins, want 2", len(logins))
	}
}

// Within a group, no variable hides the effect of another one.
func TestServer_IgnoresPGVariables(t *testing.T) {
	for group, variables := range map[string]map[string]string{
		"server": {
			"PGHOST": "db.invalid", "PGPORT": "1", "PGDATABASE": "nothing", "PGUSER": "somebody", "PGPASSWORD": "secret",
			"PGPASSFILE": "/nowhere/passfile", "PGAPPNAME": "other program", "PGOPTIONS": "-c work_mem=nonsense", "PGTZ": "Nowhere/Land",
			"PGDATA": "/nowhere", "PGSYSCONFDIR": "/nowhere", "LC_ALL": "xx_XX.UTF-8", "LANG": "xx_XX", "TZ": "Nowhere/Land",
		},
		"PGHOSTADDR": {"PGHOSTADDR": "192.0.2.1"},
		"PGSSLMODE":  {"PGSSLMODE": "disable"},
		"TLS": {
			"PGSSLROOTCERT": "/nowhere/ca.pem", "PGSSLCERT": "/nowhere/cert.pem", "PGSSLKEY": "/nowhere/key.pem", "PGSSLSNI": "0",
			"PGSSLCERTMODE": "require", "PGSSLPASSWORD": "x", "PGSSLNEGOTIATION": "direct",
		},
		"PGCHANNELBINDING": {"PGCHANNELBINDING": "require"},
		"login": {
			"PGREQUIREAUTH": "none", "PGTARGETSESSIONATTRS": "standby", "PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "3.2",
			"PGCONNECT_TIMEOUT": "nonsense",
		},
		"PGSERVICE":     {"PGSERVICE": "other"},
		"PGSERVICEFILE": {"PGSERVICE": "other", "PGSERVICEFILE": "/nowhere/services"},
	} {
		t.Run(group, func(t *testing.T) {
			for name, value := range variables {
				t.Setenv(name, value)
			}
			checkServerWorks(t)
		})
	}
}

func TestServer_DSNTakesSettings(t *testing.T) {
	s := share(t)
	address := s.Addr()
	const rest = "?sslmode=verify-full&sslrootcert="
	for _, test := range []struct {
		settings []string
		want     string
	}{
		{nil, "postgres://" + address + "/postgres" + rest + s.CAFile()},
		{[]string{"user=app", "dbname=shop"}, "postgres://app@" + address + "/shop" + rest + s.CAFile()},
		{
			[]string{"user=bob_fabrikam.example#EXT#@contoso.example"},
			"postgres://bob_fabrikam.example%23EXT%23%40contoso.example@" + address + "/postgres" + rest + s.CAFile(),
		},
		{[]string{"dbname=a b/c?d"}, "postgres://" + address + "/a%20b/c%3Fd" + rest + s.CAFile()},
		{
			[]string{"sslmode=require", "sslrootcert", "application_name=a b&c"},
			"postgres://" + address + "/postgres?sslmode=require&application_name=a%20b%26c",
		},
		{[]string{"user=x", "user=y", "user"}, "postgres://" + address + "/postgres" + rest + s.CAFile()},
	} {
		if got := s.DSN(test.settings...); got != test.want {
			t.Errorf("%q: %s, want %s", test.settings, got, test.want)
		}
	}
	config := must[*pgconn.Config](t)(pgconn.ParseConfig(s.DSN("user=it's #1@x", "dbname=a b/c?d#e%f",
		"application_name=100% + 1")))
	if config.User != "it's #1@x" || config.Database != "a b/c?d#e%f" ||
		config.RuntimeParams["application_name"] != "100% + 1" {
		t.Errorf("got %q, %q, %q", config.User, config.Database, config.RuntimeParams["application_name"])
	}
}

func TestServer_StartsWithLongTemporaryDirectory(t *testing.T) {
	dir := temporary(t, strings.Repeat("x", 60)+"/"+strings.Repeat("y", 60))
	t.Run("start", func(t *testing.T) { checkServerWorks(t) })
	if left := entries(t, dir, ""); len(left) > 0 {
		t.Errorf("%s was not removed from %s", left, dir)
	}
}

// entries returns the names in a directory that begin with prefix.
func entries(t testing.TB, dir, prefix string) []string {
	t.Helper()
	var names []string
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestServer_StartsWithTemporaryDirectoryOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := temporary(t, "private/tmp")
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	checkServerWorks(t)
	_, err := entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: filepath.Join(dir, "state")})
	if err == nil || !strings.Contains(err.Error(), "cannot enter "+dir) {
		t.Errorf("data there: %v", err)
	}
}

func TestServer_UnusableTemporaryDirectoryIsNamed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root uses /tmp instead")
	}
	t.Setenv("TMPDIR", "/nowhere/at/all")
	if _, err := entrapgtest.Start(t.Context(), entrapgtest.Config{}); err != nil &&
		!strings.Contains(err.Error(), "/nowhere/at/all") {
		t.Errorf("got %v", err)
	}
}

func TestServer_StartsWithoutUsableHome(t *testing.T) {
	for name, home := range map[string]string{"none": "", "read-only": "/proc/1", "a file": "/etc/passwd"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", home)
			t.Setenv("XDG_CACHE_HOME", "")
			checkServerWorks(t)
		})
	}
}

func TestServer_StartsWithoutPath(t *testing.T) {
	t.Setenv("ENTRAPG_POSTGRES_BIN", admin(t, share(t), "select setting from pg_config where name = 'BINDIR'"))
	for name, path := range map[string]string{"empty": "", "of another machine": "/nowhere"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", path)
			checkServerWorks(t)
		})
	}
}

func TestServer_TemplateIsPrivateSharedAndReplacedIfDamaged(t *testing.T) {
	cache := temporary(t, "cache")
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache)
	if runtime.GOOS == "darwin" {
		cache = filepath.Join(cache, "Library/Caches")
	}
	root := filepath.Join(cache, "entrapgtest")
	started := make(chan error)
	const together = 2
	for range together {
		go func() {
			s, err := entrapgtest.Start(context.Background(), entrapgtest.Config{})
			if err == nil {
				err = s.Close()
			}
			started <- err
		}()
	}
	for range together {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	names := entries(t, root, "")
	if len(names) != 1 {
		t.Fatalf("the cache contains %v", names)
	}
	template := filepath.Join(root, names[0])
	err := filepath.WalkDir(template, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can read %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	stored := must[os.FileInfo](t)(os.Stat(filepath.Join(template, "manifest.json")))
	checkServerWorks(t)
	if again := must[os.FileInfo](t)(os.Stat(filepath.Join(template, "manifest.json"))); !os.SameFile(stored, again) {
		t.Error("the template was created again")
	}
	for what, damage := range map[string]func() error{
		"a truncated file": func() error { return os.Truncate(filepath.Join(template, "data/base/1/1259"), 0) },
		"a missing file":   func() error { return os.Remove(filepath.Join(template, "data/global/pg_control")) },
		"a damaged file": func() error {
			return os.WriteFile(filepath.Join(template, "data/global/pg_control"), make([]byte, 8192), 0o600)
		},
		"a link": func() error { return os.Symlink("/etc/passwd", filepath.Join(template, "data/link")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		t.Run(what, func(t *testing.T) { checkServerWorks(t) })
		if _, err := os.Lstat(filepath.Join(template, "data/link")); err == nil {
			t.Error("the template with a link is still there")
		}
	}

	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(template, "manifest.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkServerWorks(t) // does not use the cache
	if content := must[[]byte](t)(os.ReadFile(filepath.Join(template, "manifest.json"))); string(content) != "{" {
		t.Error("a cache that others can write to was used")
	}
}

// A process that only starts servers: see TestServer_KilledStartLeavesNothing.
func TestMain_StartsServer(t *testing.T) {
	if os.Getenv("ENTRAPGTEST_CHILD") == "" {
		t.Skip("only as a child of other tests")
	}
	for {
		s, err := entrapgtest.Start(context.Background(), entrapgtest.Config{})
		fmt.Println("started", err)
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestServer_KilledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, cache := range map[string]string{"initdb": "/proc/1", "template": ""} {
		for i := range 8 {
			t.Run(fmt.Sprintf("%s, stage %d", name, i), func(t *testing.T) {
				t.Parallel()
				dir := enterable(t, "killed")
				cmd := exec.Command(os.Args[0], "-test.run", "^TestMain_StartsServer$")
				cmd.Env = append(os.Environ(), "ENTRAPGTEST_CHILD=1", "TMPDIR="+dir)
				if cache != "" {
					cmd.Env = append(cmd.Env, "XDG_CACHE_HOME="+cache, "HOME="+cache)
				}
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "a directory of the server", func() bool { return len(entries(t, dir, "entrapg-")) > 0 })
				time.Sleep(time.Duration(i*i) * 20 * time.Millisecond)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatalf("%v: %s", err, &out)
				}
				_ = cmd.Wait()
				eventually(t, "nothing is left in "+dir, func() bool { return len(entries(t, dir, "")) == 0 })
				eventually(t, "no process is left", func() bool {
					out, _ := exec.Command("ps", "-eo", "args").Output()
					return !bytes.Contains(out, []byte(dir))
				})
			})
		}
	}
}

// postmaster returns the process ID of the server's PostgreSQL.
func postmaster(t testing.TB, s *entrapgtest.Server) int {
	t.Helper()
	data := admin(t, s, "show data_directory")
	content := must[[]byte](t)(os.ReadFile(filepath.Join(data, "postmaster.pid")))
	line, _, _ := strings.Cut(string(content), "\n")
	return must[int](t)(strconv.Atoi(line))
}

func TestServer_RestartAfterPostgreSQLWasKilled(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	alice := s.Tenant.NewUser("alice@contoso.example")
	createRole(t, s, "", alice)
	admin(t, s, "create table kept as select 42 as n; select n::text from kept")
	for name, signal := range map[string]syscall.Signal{
		"killed": syscall.SIGKILL, "shut down": syscall.SIGINT,
		"aborted": syscall.SIGABRT,
	} {
		pid := postmaster(t, s)
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context()); err == nil {
			t.Errorf("%s: Wait returns no error", name)
		}
		if _, err := session(t, s, alice); err == nil || !hasCode(err, "08006") && !hasCode(err, "57P03") {
			t.Errorf("%s: meanwhile: %v", name, err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := session(t, s, alice); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
		if n := admin(t, s, "select n::text from kept"); n != "42" {
			t.Errorf("%s: the table has %s", name, n)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Errorf("%s: a second time: %v", name, err)
		}
	}
}

// resources counts resources of this process that servers could leak.
func resources(t testing.TB) map[string]int {
	t.Helper()
	left := map[string]int{
		"goroutines":            runtime.NumGoroutine(),
		"temporary directories": len(entries(t, os.TempDir(), "")),
	}
	if descriptors, err := os.ReadDir("/proc/self/fd"); err == nil {
		left["file descriptors"] = len(descriptors)
	}
	return left
}

// sharedMemory returns the files of a server's shared memory on Linux, and the lines
// of its segments in /proc/sysvipc/shm.
func sharedMemory(t testing.TB, s *entrapgtest.Server) (files, segments []string) {
	t.Helper()
	pid := strconv.Itoa(postmaster(t, s))
	maps, _ := os.ReadFile("/proc/" + pid + "/maps")
	for line := range strings.Lines(string(maps)) {
		if _, name, ok := strings.Cut(line, "/dev/shm/"); ok && !strings.Contains(name, "(deleted)") {
			files = append(files, "/dev/shm/"+strings.TrimSpace(name))
		}
	}
	all, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(all)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == pid { // the creator
			segments = append(segments, strings.Join(fields[:2], " "))
		}
	}
	return files, segments
}

// memoryLeft lists the shared memory that still exists.
func memoryLeft(files, segments []string) (left string) {
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			left += file + "; "
		}
	}
	all, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(all)) {
		if fields := strings.Fields(line); len(fields) > 1 && slices.Contains(segments, strings.Join(fields[:2], " ")) {
			left += "segment " + line
		}
	}
	return left
}

func TestServer_CloseReleasesMemoryOfKilledPostgreSQL(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds shared memory only on Linux")
	}
	t.Parallel()
	s := must[*entrapgtest.Server](t)(entrapgtest.Start(t.Context(), entrapgtest.Config{}))
	files, segments := sharedMemory(t, s)
	if err := syscall.Kill(postmaster(t, s), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context()); err == nil {
		t.Error("Wait returns no error")
	}
	_ = s.Close() // reports the kill
	if left := memoryLeft(files, segments); left != "" || len(files) == 0 || len(segments) == 0 {
		t.Errorf("left of files %v and segments %v: %s", files, segments, left)
	}
}

// ENTRAPGTEST_SERVERS=200 starts 200 servers, each with its own PostgreSQL.
func TestServer_RepeatedStartsLeakNothing(t *testing.T) {
	upstream := share(t).AdminDSN()
	temporary(t, "many")
	var files, segments []string
	one := func(config entrapgtest.Config) {
		s, err := entrapgtest.Start(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		alice := s.Tenant.NewUser("alice@contoso.example")
		createRole(t, s, "", alice)
		if err := logIn(t, s, alice.Name, token(t, alice, audience).Token); err != nil {
			t.Error(err)
		}
		if config.Upstream == "" {
			moreFiles, moreSegments := sharedMemory(t, s)
			files, segments = append(files, moreFiles...), append(segments, moreSegments...)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	clusters, fronts := 3, 20
	if n, err := strconv.Atoi(os.Getenv("ENTRAPGTEST_SERVERS")); err == nil {
		clusters = n
	}
	if testing.Short() {
		clusters, fronts = 1, 10
	}
	one(entrapgtest.Config{})
	before := resources(t)
	for range clusters {
		one(entrapgtest.Config{})
	}
	for range fronts {
		one(entrapgtest.Config{Upstream: upstream})
	}
	var left string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left = ""
		for name, n := range resources(t) {
			if n > before[name]+2 { // the runtime's own vary
				left += fmt.Sprintf("%d %s, %d before; ", n, name, before[name])
			}
		}
		if left == "" || time.Now().After(deadline) {
			break
		}
	}
	if left += memoryLeft(files, segments); left != "" {
		t.Errorf("left: %s", left)
	}
	if runtime.GOOS == "linux" && (len(files) == 0 || len(segments) == 0) {
		t.Errorf("no shared memory was found: files %v, segments %v", files, segments)
	}
}

func TestServer_UserWithoutPasswdEntryIsExplained(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := temporary(t, "nobody")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, must[[]byte](t)(os.ReadFile(must[string](t)(os.Executable()))), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestMain_StartsServer$")
	cmd.Dir = "/"
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "HOME=") }),
		"ENTRAPGTEST_CHILD=1", "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if !errors.As(err, &failed) || !bytes.Contains(out, []byte("/etc/passwd")) || !bytes.Contains(out, []byte("54321")) {
		t.Errorf("%v: %s", err, out)
	}
}

// The first start with a version of PostgreSQL also runs initdb. This benchmark measures
// the others.
func BenchmarkServer_Start(b *testing.B) {
	for b.Loop() {
		s, err := entrapgtest.Start(b.Context(), entrapgtest.Config{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
