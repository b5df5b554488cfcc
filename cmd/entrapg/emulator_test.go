package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// A running is an emulator that a test has started, on its own ports.
type running struct {
	t       *testing.T
	cmd     *exec.Cmd
	dir     string // its temporary files
	out     string // the file with its output
	envFile string
	ended   chan struct{}
}

// anyPorts are arguments with which several emulators can run at once.
var anyPorts = []string{"--addr", "127.0.0.1:0", "--tenant-addr", "127.0.0.1:0", "--identity-addr", "127.0.0.1:0"}

// startEmulator starts an emulator with its own PostgreSQL.
func startEmulator(t *testing.T, args ...string) *running {
	t.Helper()
	e := &running{t: t, ended: make(chan struct{}), out: filepath.Join(t.TempDir(), "out"), envFile: filepath.Join(t.TempDir(), ".env")}
	if i := slices.Index(args, "--env-file"); i >= 0 {
		e.envFile = args[i+1]
	} else {
		args = append([]string{"--env-file", e.envFile}, args...)
	}
	e.cmd, _, e.dir = program(t, slices.Concat([]string{"emulator"}, anyPorts, args)...)
	out, err := os.Create(e.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	e.cmd.Stdout, e.cmd.Stderr = out, out
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(e.ended)
		e.cmd.Wait()
	}()
	t.Cleanup(func() {
		e.cmd.Process.Kill()
		<-e.ended
	})
	e.await("Logins:")
	return e
}

// emulate starts an emulator in front of the PostgreSQL that the tests share.
func emulate(t *testing.T, args ...string) *running {
	t.Helper()
	return startEmulator(t, append([]string{"--upstream", azureServer(t).AdminDSN()}, args...)...)
}

// printed returns the output so far.
func (e *running) printed() string {
	b, err := os.ReadFile(e.out)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

// await waits for output.
func (e *running) await(want string) {
	e.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(e.printed(), want); time.Sleep(10 * time.Millisecond) {
		select {
		case <-e.ended:
			if strings.Contains(e.printed(), want) {
				return
			}
			e.t.Fatalf("the emulator ended without printing %q:\n%s", want, e.printed())
		default:
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("no %q:\n%s", want, e.printed())
		}
	}
}

// stop sends a signal and returns the exit code.
func (e *running) stop(signal os.Signal) int {
	e.cmd.Process.Signal(signal)
	if signal == os.Kill {
		<-e.ended
		return command.Failed
	}
	return e.wait()
}

func (e *running) wait() int {
	<-e.ended
	if entries := left(e.t, e.dir); len(entries) > 0 {
		e.t.Errorf("left behind: %v", entries)
	}
	return e.cmd.ProcessState.ExitCode()
}

// blocks returns the settings that the emulator has printed, without titles.
func (e *running) blocks() []string {
	var blocks []string
	open := false
	for line := range strings.Lines(e.printed()) {
		setting := strings.HasPrefix(line, "export ") || strings.HasPrefix(line, "unset ")
		switch {
		case setting && !open:
			blocks = append(blocks, line)
		case setting:
			blocks[len(blocks)-1] += line
		}
		open = setting
	}
	return blocks
}

// logInWithAzidentity logs in as a program that does not use this module.
func logInWithAzidentity() {
	err := func() error {
		ctx := context.Background()
		credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{DisableInstanceDiscovery: true})
		if err != nil {
			return err
		}
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{publicScope}})
		if err != nil {
			return err
		}
		config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
		if err != nil {
			return err
		}
		config.Password = token.Token
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		var user string
		err = conn.QueryRow(ctx, "select session_user").Scan(&user)
		fmt.Println(user)
		return err
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// await waits until a condition is met.
func await(t *testing.T, so func() bool, printed func() string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out:\n%s", printed())
		}
	}
}

// write writes a temporary file and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func needsSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs signals and a shell of Unix")
	}
}

func TestEmulator_AcceptsPortAsAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, flag := range []string{"--addr", "--tenant-addr", "--identity-addr"} {
		args := []string{"emulator", "--addr", "0", "--tenant-addr", "0", "--identity-addr", "0"}
		args[slices.Index(args, flag)+1] = port
		r := runAs(t, nil, args...)
		if want := "entrapg: " + flag + ": listen tcp 127.0.0.1:" + port + ": "; r.code != command.Failed || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("got %+v, want %s", r, want)
		}
	}
}

func TestEmulator_ServesProgramsThatReadItsSettings(t *testing.T) {
	t.Parallel()
	file := write(t, "principals", "\ufeff# who exists\nuser emma@contoso.example # a person\nidentity emu-api\r\nidentity \"emu later\"\n"+
		"group 'emu readers' emma@contoso.example\nservice emu-deployer\nadmin emu-admin\n")
	e := emulate(t, "--principals", file, "--no-roles", "--token-life", "90s")
	psql := installed(t, "psql")

	if r := runAs(t, nil, "exec", "--env-file", e.envFile, "--", psql, "-XAtc", "select 1"); r.code == 0 {
		t.Errorf("a login without a role succeeds: %+v", r)
	}
	e.await("· emu-api → postgres, psql: the role is not mapped to Entra")

	created := "emu-" + strings.ToLower(rand.Text()) // another one each time that the test runs
	admin := emulate(t, "--upstream", azureServer(t).AdminDSN(), "--admin", "emu-admin-2", "--identity", created,
		"--as", "emu-admin-2", "--no-roles")
	script := "select * from pgaadauth_create_principal('" + created + "', false, false); " +
		"select rolename from pgaadauth_list_principals(false)"
	if r := runAs(t, nil, "exec", "--env-file", admin.envFile, "--", psql, "-XAtc", script); r.code != 0 ||
		!strings.HasPrefix(r.stdout, "Created role for \""+created+"\"\n") || strings.Count(r.stdout, "\n") != 3 ||
		!strings.Contains(r.stdout, "\n"+created+"\n") || !strings.Contains(r.stdout, "\nemu-admin-2\n") {
		t.Errorf("provisioning: %+v", r)
	}
	admin.await("✓ emu-admin-2 → postgres, psql: accepted")

	if r := runAs(t, nil, "whoami", "--env-file", e.envFile); r.code != 0 || !strings.Contains(r.stdout, "1m ") {
		t.Errorf("a token of 90 seconds: %+v", r)
	}
	if r := runAs(t, nil, "exec", "--env-file", e.envFile, "user=emu-admin", "--", psql, "-XAtc", "select 1"); r.code == 0 {
		t.Errorf("a login as another principal succeeds: %+v", r)
	}
	for line := range strings.Lines(e.printed()) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > 80 && !strings.HasPrefix(line, "export ") && !strings.HasPrefix(line, "unset ") &&
			!strings.HasPrefix(line, "$env:") &&
			!strings.Contains(line, e.envFile) {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	if code := e.stop(syscall.SIGTERM); code != command.Done || !strings.HasSuffix(e.printed(), "stopped\n") {
		t.Errorf("exit code %d: %s", code, e.printed())
	}
	if _, err := os.Stat(e.envFile); err == nil {
		t.Error("the settings of an ended server are left behind")
	}
}

// A shell can read the printed settings, which work for entrapg, for libpq, and for
// programs with azidentity.
func TestEmulator_SettingsLogEachKindOfPrincipalIn(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	everybody := []string{
		"--user", "kim@contoso.example", "--guest", "lee@fabrikam.example", "--guest", "live.com#max@outlook.example",
		"--service", "kind-deployer", "--identity", "kind-api", "--identity", "kind-jobs", "--system", "Microsoft.Web/sites/kind-shop",
		"--system", "/subscriptions/1/resourceGroups/g/providers/Microsoft.Web/sites/kind-shop/slots/staging",
		"--group", "kind readers=kim@contoso.example,kind-jobs", "--group", "kind-writers=kind-jobs",
		"--admin", "kind-admin", "--admin", "kind-boss@contoso.example",
	}
	for _, test := range []struct {
		args  []string
		roles []string // of the blocks
	}{
		{[]string{"--user", "ann@contoso.example"}, []string{"ann@contoso.example"}},
		{[]string{"--user", "o'brien@contoso.example"}, []string{"o'brien@contoso.example"}},
		{[]string{"--guest", "ben@fabrikam.example"}, []string{"ben_fabrikam.example#EXT#@contoso.example"}},
		{[]string{"--service", "only service"}, []string{"only service"}},
		{[]string{"--identity", "only-identity"}, []string{"only-identity"}},
		{[]string{"--system", "Microsoft.Compute/virtualMachines/only-vm"}, []string{"only-vm"}},
		{[]string{"--group", "only-group", "--as", "only-group"}, []string{"only-group"}},
		{[]string{"--admin", "only-admin@contoso.example", "--identity", "beside-admin"}, []string{"beside-admin"}},
		{
			append(everybody,
				"--as", "kim@contoso.example", "--as", "lee@fabrikam.example", "--as", "live.com#max@outlook.example", "--as", "kind-deployer",
				"--as", "kind-api", "--as", "kind-jobs", "--as", "kind-shop", "--as", "kind-shop/slots/staging", "--as", "kind readers",
				"--as", "kind-writers", "--as", "kind-admin", "--as", "kind-boss@contoso.example"),
			[]string{
				"kim@contoso.example", "lee_fabrikam.example#EXT#@contoso.example", "max_outlook.example#EXT#@contoso.example", "kind-deployer",
				"kind-api", "kind-jobs", "kind-shop", "kind-shop/slots/staging", "kind readers", "kind-writers", "kind-admin", "kind-boss@contoso.example",
			},
		},
	} {
		t.Run(strings.Join(test.args[:2], " "), func(t *testing.T) {
			t.Parallel()
			e := emulate(t, test.args...)
			blocks := e.blocks()
			if len(blocks) != len(test.roles) {
				t.Fatalf("%d blocks for %q:\n%s", len(blocks), test.roles, e.printed())
			}
			// All blocks run in one shell, in reverse order, so that each must override all
			// settings of the others.
			script, want := "set -e\n", ""
			for i, block := range slices.Backward(blocks) {
				script += block + `"$0" exec -- sh -c 'echo "$PGUSER"; psql -XAtc "select session_user"'; psql -XAtc 'select session_user' "$DATABASE_URL"; ` +
					`ENTRAPG_TEST_AS_COMMAND= ENTRAPG_TEST_AS_AZIDENTITY=1 "$0"` + "\n"
				want += strings.Repeat(test.roles[i]+"\n", 4)
			}
			installed(t, "psql")
			cmd, out, _ := program(t)
			cmd.Path, cmd.Args = "/bin/sh", []string{"/bin/sh", "-c", script, os.Args[0]}
			cmd.Env = append(cmd.Env, "AZURE_CLIENT_SECRET=stale", "AZURE_CLIENT_ID=stale", "AZURE_USERNAME=stale")
			if err := cmd.Run(); err != nil || out.String() != want {
				t.Errorf("%v: got %s\nwant %s\n%s", err, out, want, e.printed())
			}
			stale := []string{"PGUSER=stale", "AZURE_CLIENT_SECRET=stale", "AZURE_CLIENT_ID=stale", "AZURE_USERNAME=stale"}
			r := runAs(t, stale, "exec", "--env-file", e.envFile, "--", "sh",
				"-c", `echo "$PGUSER"; psql -XAtc "select session_user"; ENTRAPG_TEST_AS_COMMAND= ENTRAPG_TEST_AS_AZIDENTITY=1 "$0"`, os.Args[0])
			if r.code != command.Done || r.stdout != strings.Repeat(test.roles[0]+"\n", 3) {
				t.Errorf("--env-file: %+v", r)
			}
		})
	}
}

func TestEmulator_SettingsContainNoAdministratorCredentials(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	e := emulate(t, "--identity", "away-api", "--system", "Microsoft.Web/sites/away-shop", "--service", "away-service",
		"--admin", "away-admin", "--admin", "away@contoso.example")
	_, list, _ := strings.Cut(e.printed(), "away@contoso.example")
	list, _, _ = strings.Cut(list, "\n\n")
	if strings.Contains(list, "PASSWORD") {
		t.Errorf("an administrator's password is printed: %s", list)
	}
	_, list, _ = strings.Cut(e.printed(), "  away-admin ")
	_, id, _ := strings.Cut(list, "AZURE_CLIENT_ID=")
	id, _, _ = strings.Cut(id, "\n")
	script := e.blocks()[0] + "AZURE_CLIENT_ID=" + id + ` exec "$0" token`
	cmd, out, _ := program(t)
	cmd.Path, cmd.Args = "/bin/sh", []string{"/bin/sh", "-c", script, os.Args[0]}
	if err := cmd.Run(); err == nil || strings.Contains(out.String(), "eyJ") || len(id) != 36 {
		t.Errorf("the application got a token of %s: %v, %s", id, err, out)
	}
}

func TestEmulator_EnvFileOfEarlierEmulatorIsTakenOver(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	first := emulate(t, "--identity", "env-first")
	first.stop(syscall.SIGKILL)
	content, err := os.ReadFile(first.envFile)
	if err != nil || !strings.Contains(string(content), "env-first") {
		t.Fatalf("%v: %q", err, content)
	}
	args := append([]string{"emulator", "--upstream", azureServer(t).AdminDSN(), "--env-file"}, anyPorts...)
	start := func(path string, more ...string) *running { return emulate(t, append(more, "--env-file", path)...) }

	second := start(first.envFile, "--identity", "env-second")
	content, err = os.ReadFile(first.envFile)
	if err != nil || !strings.Contains(string(content), "env-second") || strings.Contains(string(content), "env-first") {
		t.Errorf("%v: %q", err, content)
	}
	if info, err := os.Stat(first.envFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v: %v", err, info.Mode())
	}
	if r := runAs(t, nil, slices.Concat(args[:4], []string{first.envFile}, anyPorts)...); r.code != command.Failed ||
		!strings.Contains(r.stderr, "is in use by another emulator") {
		t.Errorf("while another one runs: %+v", r)
	}
	if code := second.stop(syscall.SIGINT); code != command.Done {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(first.envFile); err == nil {
		t.Error("the file still exists")
	}
}

func TestEmulator_KeepsFilesThatItDidNotCreate(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	const own = "SECRET=mine\n"
	target := write(t, "target", own)
	link := filepath.Join(t.TempDir(), ".env")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	left := emulate(t, "--identity", "env-edited")
	left.stop(syscall.SIGKILL)
	f, err := os.OpenFile(left.envFile, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(own)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"own": write(t, ".env", own), "empty": write(t, ".env", ""), "link": link, "edited": left.envFile, "directory": t.TempDir(),
	} {
		before, _ := os.ReadFile(path)
		r := runAs(t, nil, slices.Concat([]string{"emulator", "--upstream", azureServer(t).AdminDSN(), "--env-file", path}, anyPorts)...)
		after, _ := os.ReadFile(path)
		if r.code != command.Failed || !strings.Contains(r.stderr, "--env-file: "+path+" already exists") || string(before) != string(after) {
			t.Errorf("%s: %+v, %q", name, r, after)
		}
	}

	for name, replace := range map[string]func(path string) error{
		"renamed":    func(path string) error { return os.Rename(path, path+".old") },
		"removed":    os.Remove, // the next file would get its inode
		"overwrites": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := emulate(t, "--identity", "env-"+name, "--admin", "env-"+name+"-admin")
			if err := replace(e.envFile); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(e.envFile, []byte(own), 0o644); err != nil {
				t.Fatal(err)
			}
			if code := e.stop(syscall.SIGTERM); code != command.Done {
				t.Errorf("exit code %d", code)
			}
			if b, err := os.ReadFile(e.envFile); err != nil || string(b) != own {
				t.Errorf("%v: %q", err, b)
			}
		})
	}
}

func TestEmulator_StopsCleanlyAtHangup(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	e := emulate(t, "--identity", "hangup", "--admin", "hangup-admin")
	if code := e.stop(syscall.SIGHUP); code != command.Done || !strings.HasSuffix(e.printed(), "stopped\n") {
		t.Errorf("exit code %d: %s", code, e.printed())
	}
	if _, err := os.Stat(e.envFile); err == nil {
		t.Error("the file with its settings is left behind")
	}
}

func TestEmulator_KeepsRunningWhenItsLogEnds(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	envFile := filepath.Join(t.TempDir(), ".env")
	args := []string{
		"emulator", "--upstream", azureServer(t).AdminDSN(), "--env-file", envFile,
		"--identity", "pipe-api", "--admin", "pipe-admin",
	}
	cmd, stderr, dir := program(t, slices.Concat(args, anyPorts)...)
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "Logins:"; {
	}
	if err := out.Close(); err != nil { // like head
		t.Fatal(err)
	}
	psql := installed(t, "psql")
	for range 2 {
		if r := runAs(t, nil, "exec", "--env-file", envFile, "--", psql, "-XAtc", "select 1"); r.code != command.Done {
			t.Errorf("a login: %+v", r)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != command.Failed || strings.Count(stderr.String(), "the log of logins is incomplete") != 1 ||
		!strings.Contains(stderr.String(), "broken pipe") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := os.Stat(envFile); err == nil {
		t.Error("the file with its settings is left behind")
	}
}

func TestEmulator_ReportsFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	args := []string{
		"emulator", "--upstream", azureServer(t).AdminDSN(), "--identity", "full-api", "--admin", "full-admin",
	}
	cmd, stderr, dir := program(t, slices.Concat(args, anyPorts)...)
	cmd.Stdout = full
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != command.Failed || !strings.Contains(stderr.String(), "no space left on device") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestEmulator_EndsWithItsPostgreSQL(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	e := startEmulator(t)
	killPostgres(t, e)
	if code := e.wait(); code != command.Failed || !strings.Contains(e.printed(), "entrapg: PostgreSQL ended: ") {
		t.Errorf("exit code %d: %s", code, e.printed())
	}
	if _, err := os.Stat(e.envFile); err == nil {
		t.Error("the file with its settings is left behind")
	}
}

// killPostgres ends the PostgreSQL of an emulator as a crash does.
func killPostgres(t *testing.T, e *running) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(e.dir, "*", "data", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v: %v", err, files)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(content), &pid); err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
}

func TestEmulator_SettingsForOtherContainers(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	dir := t.TempDir()
	first, second, ca := filepath.Join(dir, "first.env"), filepath.Join(dir, "second.env"), filepath.Join(dir, "ca.pem")
	e := emulate(t, "--addr", "0.0.0.0:0", "--tenant-addr", "0.0.0.0:0", "--identity-addr", "0.0.0.0:0",
		"--hostname", "emulator", "--ca-file", ca, "--identity", "shared-api", "--service", "shared-jobs",
		"--as", "shared-api", "--as", "shared-jobs", "--admin", "shared-admin", "--world-readable", "--env-file", first,
		"--env-file", second)
	for path, contains := range map[string][]string{
		first: {
			"DATABASE_URL='postgres://emulator:", "PGUSER='shared-api'", "IDENTITY_ENDPOINT='http://emulator:",
			"PGSSLROOTCERT='" + ca + "'",
		},
		second: {
			"DATABASE_URL='postgres://emulator:", "PGUSER='shared-jobs'", "AZURE_AUTHORITY_HOST='https://emulator:",
			"SSL_CERT_FILE='" + ca + "'",
		},
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range contains {
			if !strings.Contains(string(content), s) {
				t.Errorf("%s: no %s in %s", path, s, content)
			}
		}
	}
	for _, path := range []string{first, second, ca} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	e.stop(syscall.SIGTERM)
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// The command for a block's own file follows the block. Blocks without a file share
// one command.
func TestEmulator_NamesFileOfEachPrincipal(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.env"), filepath.Join(dir, "it's second.env")
	e := emulate(t, "--identity", "file-api", "--service", "file-jobs", "--user", "file@contoso.example",
		"--as", "file-api", "--as", "file-jobs", "--as", "file@contoso.example", "--env-file", first, "--env-file", second)
	var got []string
	for _, match := range regexp.MustCompile(`to log in as (.*):\n|\n  entrapg (exec.*) -- psql\n`).FindAllStringSubmatch(e.printed(), -1) {
		got = append(got, match[1]+match[2])
	}
	want := []string{
		"file-api", "exec --env-file " + first, "file-jobs", `exec --env-file '` + dir + `/it'\''s second.env'`, "file@contoso.example", "exec",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q\nwant %q\n%s", got, want, e.printed())
	}
	for path, role := range map[string]string{first: "file-api", second: "file-jobs"} {
		r := runAs(t, nil, "exec", "--env-file", path, "--", installed(t, "psql"), "-XAtc", "select session_user")
		if r.code != command.Done || r.stdout != role+"\n" {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

func TestEmulator_IgnoresProbes(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	e := emulate(t, "--identity", "probe-api", "--admin", "probe-admin")
	probe := exec.Command("/bin/sh", "-c", e.blocks()[0]+`unset PGPASSWORD; exec "$0" -d "$DATABASE_URL" -U postgres`,
		installed(t, "pg_isready"))
	if out, err := probe.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if r := runAs(t, nil, "exec", "--env-file", e.envFile, "--", installed(t, "psql"), "-XAtc", "select 1"); r.code != command.Done {
		t.Errorf("a login: %+v", r)
	}
	e.await("probe-api → postgres")
	if _, logins, _ := strings.Cut(e.printed(), "Logins:"); strings.Contains(logins, "pg_isready") {
		t.Errorf("%s", logins)
	}
}

func TestEmulator_VariablesSetFlags(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"ENTRAPG_EMULATOR_HOSTNAME=emulator:15432":  `--hostname: "emulator:15432" is neither a host name nor an IP address`,
		"ENTRAPG_EMULATOR_IDENTITY=one\ntwo\none\n": `"one" has the same role name as "one"`,
		"ENTRAPG_EMULATOR_TOKEN_LIFE=1ms":           "must be at least 1s",
		"ENTRAPG_EMULATOR_PRINCIPALS=/nowhere":      "--principals: open /nowhere",
		"ENTRAPG_EMULATOR_ENV_FILE=/nowhere/a\n/b":  "--env-file: 2 files, but the number of principals is 1; add --as NAME for each file",
		"ENTRAPG_EMULATOR_CA_FILE=" + os.Args[0]:    "--ca-file: " + os.Args[0] + " already exists",
	} {
		args := append([]string{"emulator"}, anyPorts...)
		if r := runAs(t, []string{variable}, args...); r.code == command.Done || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", variable, r)
		}
	}
}

func TestEmulator_StateSurvivesStops(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	psql := installed(t, "psql")
	parent, err := os.MkdirTemp("", "state")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil { // PostgreSQL may run as another user
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "state")
	settings := func(e *running) string {
		b, err := os.ReadFile(e.envFile)
		if err != nil {
			t.Fatal(err)
		}
		var lasting []string
		for line := range strings.Lines(string(b)) {
			// Ports and tokens differ between runs.
			if name, _, _ := strings.Cut(line, "="); name == "AZURE_CLIENT_ID" || name == "IDENTITY_HEADER" || name == "PGSSLROOTCERT" ||
				name == "PGUSER" {
				lasting = append(lasting, line)
			}
		}
		return strings.Join(lasting, "")
	}
	var first string
	for n, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT} {
		e := startEmulator(t, "--state", dir, "--identity", "state-api")
		if n == 0 {
			first = settings(e)
			r := runAs(t, nil, slices.Concat([]string{"emulator", "--state", dir}, anyPorts)...)
			if r.code != command.Failed || !strings.Contains(r.stderr, "--state: "+dir+" is in use by process ") {
				t.Errorf("a second emulator: %+v", r)
			}
		}
		if now := settings(e); now != first || !strings.Contains(now, "PGUSER") {
			t.Errorf("start %d: settings %s, were %s", n, now, first)
		}
		sql := "do $$ begin perform lo_create(0); end $$; select count(*) from pg_largeobject_metadata" // every role may do this
		if r := runAs(t, nil, "exec", "--env-file", e.envFile, "--", psql, "-qXAtc", sql); r.code != command.Done || r.stdout != fmt.Sprintln(n+1) {
			t.Errorf("start %d: %+v", n, r)
		}
		e.stop(signal)
	}
}

func TestEmulator_ReportsInvalidArguments(t *testing.T) {
	t.Parallel()
	file := func(content string) string { return write(t, "principals", content) }
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--principals", file("identity a\nrobot b\n")}, `--principals: FILE, line 2: unknown kind "robot"`},
		{[]string{"--principals", file("identity a\n\nidentity\n")}, "--principals: FILE, line 3: missing name after identity"},
		{
			[]string{"--principals", file("identity my app\n")},
			`--principals: FILE, line 1: unexpected "app"; quote a name that contains spaces`,
		},
		{[]string{"--principals", file("identity \"my app\n")}, `--principals: FILE, line 1: missing " at the end of a name`},
		{[]string{"--principals", file("identity \"my app\"x\n")}, `--principals: FILE, line 1: unexpected "x" after a quoted name`},
		{[]string{"--principals", file("i\x00d\x00")}, "save it as UTF-8"},
		{
			[]string{"--principals", file("group g\ngroup all g nobody\nuser u@x.example\n")},
			`--principals: FILE, line 2: member "g" of group "all" is a group`,
		},
		{
			[]string{"--principals", file("identity twice\n"), "--service", "twice"},
			`--principals: FILE, line 1: "twice" has the same role name as "twice" of --service`,
		},
		{[]string{"--identity", "a", "--identity", "a"}, `--identity: "a" has the same role name as "a" of --identity; rename one of them`},
		{[]string{"--user", "Ann@x.example", "--user", "ann@x.example"}, `"ann@x.example" has the same role name`},
		{[]string{"--identity", "shop", "--system", "Microsoft.Web/sites/shop"}, `"Microsoft.Web/sites/shop" has the same role name as "shop"`},
		{[]string{"--identity", "db-admin"}, `of --identity; rename one of them`},
		{[]string{"--system", "shop"}, `--system: "shop" is not a resource ID; it must be like Microsoft.Web/sites/shop`},
		{[]string{"--system", "Microsoft.Web/sites"}, "is not a resource ID"},
		{[]string{"--system", "Microsoft.Web/sites/"}, "is not a resource ID"},
		{[]string{"--system", "sites/shop/x"}, "is not a resource ID"},
		{[]string{"--user", "ann"}, `--user: "ann" is not a user principal name; it must be like ann@contoso.example`},
		{[]string{"--addr", "70000"}, `--addr: invalid port in "70000"; want a number from 1 to 65535`},
		{[]string{"--tenant-addr", "127.0.0.1:70000"}, `--tenant-addr: invalid port in "127.0.0.1:70000"; want a number`},
		{[]string{"--identity-addr", "::1:5"}, `--identity-addr: invalid address "::1:5"; want HOST:PORT, [IPV6]:PORT or a port`},
		{[]string{"--addr", "postgres"}, `--addr: invalid port in "postgres"`},
		{[]string{"--guest", "bob"}, `--guest: "bob" is not an email address`},
		{[]string{"--identity", ""}, "--identity: missing name"},
		{[]string{"--identity", "pg_api"}, `reserves the role name "pg_api"`},
		{[]string{"--identity", strings.Repeat("x", 64)}, "has 64 bytes; PostgreSQL accepts 63"},
		{[]string{"--service", "a\x1b[31m"}, "contains characters that do not print"},
		{[]string{"--group", "g=nobody", "--user", "u@x.example"}, `--group: unknown member "nobody" of group "g"`},
		{[]string{"--as", "nobody", "--user", "u@x.example"}, `--as: unknown principal "nobody"; the principals are "u@x.example", "db-admin"`},
		{[]string{"--as", "g", "--group", "g", "--user", "u@x.example"}, `--as: group "g" has no members`},
		{[]string{"--token-life", "1ms"}, "--token-life"},
		{[]string{"extra"}, "extra"},
	} {
		r := runAs(t, nil, append([]string{"emulator"}, test.args...)...)
		want := strings.ReplaceAll(test.want, "FILE", test.args[min(1, len(test.args)-1)])
		if r.code != command.Misuse || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
}

func TestEmulator_AddressInUseNamesFlag(t *testing.T) {
	t.Parallel()
	taken := azureServer(t).Addr()
	for _, flag := range []string{"--addr", "--tenant-addr", "--identity-addr"} {
		r := runAs(t, nil, slices.Concat([]string{"emulator", "--upstream", azureServer(t).AdminDSN()}, anyPorts, []string{flag, taken})...)
		if r.code != command.Failed || !strings.HasPrefix(r.stderr, "entrapg: "+flag+": ") ||
			!strings.Contains(r.stderr, "; stop the program that uses it, or name another address") {
			t.Errorf("%s: %+v", flag, r)
		}
	}
	for flag, value := range map[string]string{"--upstream": "port=x", "--state": write(t, "file", "")} {
		r := runAs(t, nil, slices.Concat([]string{"emulator"}, anyPorts, []string{flag, value})...)
		if r.code != command.Failed || !strings.HasPrefix(r.stderr, "entrapg: "+flag+": ") {
			t.Errorf("%s: %+v", flag, r)
		}
	}
}
