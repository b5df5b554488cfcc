package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/signaltest"
	"github.com/entrapg/entrapg/entrapgtest"
)

// TestMain lets this test binary replace the command: the tests run it as a separate
// process, with signals and exit codes.
func TestMain(m *testing.M) {
	if os.Getenv("ENTRAPG_TEST_AS_COMMAND") != "" {
		main()
	}
	if os.Getenv("ENTRAPG_TEST_AS_AZIDENTITY") != "" {
		logInWithAzidentity()
	}
	signaltest.Restore()
	// With the race detector, a process sleeps for a second before it exits. The tests start hundreds.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	code := m.Run()
	closeAzure()
	os.Exit(code)
}

// program returns the command, with its own directory for temporary files and
// without the settings of this machine.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, out *bytes.Buffer, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cmd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // PostgreSQL may run as another user
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "AZURE_") || strings.HasPrefix(name, "IDENTITY_") ||
			name == "DATABASE_URL"
	})
	cmd.Env = append(cmd.Env, "ENTRAPG_TEST_AS_COMMAND=1", "TMPDIR="+dir, "TMP="+dir, "TEMP="+dir,
		"PGCONNECT_TIMEOUT=60") // the defaults of doctor and exec are too short for a slow machine
	out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out, dir
}

// A result is the result of the command.
type result struct {
	code           int
	stdout, stderr string
}

// runAs runs the command in an environment and waits until it ends.
func runAs(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return startAs(t, env, args...)()
}

// startAs starts the command in an environment. wait waits until it ends.
func startAs(t *testing.T, env []string, args ...string) (wait func() result) {
	t.Helper()
	cmd, _, _ := program(t, args...)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() result {
		t.Helper()
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
}

// The resource and the scope of tokens for databases in Azure's public cloud.
const (
	publicResource = "https://ossrdbms-aad.database.windows.net"
	publicScope    = publicResource + "/.default"
)

// azure is the server of all tests that do not inject faults.
var azure = sync.OnceValues(func() (*entrapgtest.Server, error) {
	s, err := entrapgtest.Start(context.Background(), entrapgtest.Config{})
	if err == nil {
		closeAzure = func() { s.Close() }
	}
	return s, err
})

var closeAzure = func() {}

func azureServer(t *testing.T) *entrapgtest.Server {
	t.Helper()
	s, err := azure()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// identityWith adds a managed identity, and its role if role is set. It returns the
// environment of a program that runs on a host as that identity.
func identityWith(t *testing.T, s *entrapgtest.Server, name string, role bool) (*entrapgtest.Principal, []string) {
	t.Helper()
	p := s.Tenant.NewUserAssignedIdentity(name)
	if role {
		if err := s.CreateRole(t.Context(), "", p); err != nil {
			t.Fatal(err)
		}
	}
	return p, append(s.Tenant.NewHost(p).Environ(), "AZURE_CLIENT_ID="+p.ClientID,
		"AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential", "DATABASE_URL="+s.DSN())
}

// needsCAVariable skips a test whose environment sets the trusted authority, on
// systems where Go ignores SSL_CERT_FILE.
func needsCAVariable(t *testing.T, env []string) {
	t.Helper()
	names := slices.ContainsFunc(env, func(entry string) bool { return strings.HasPrefix(entry, "SSL_CERT_FILE=") })
	if names && (runtime.GOOS == "windows" || runtime.GOOS == "darwin") {
		t.Skip("Go ignores SSL_CERT_FILE on " + runtime.GOOS)
	}
}

func left(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// It does not run beside other tests: a login that takes longer than its token is valid, which
// is 4 seconds, fails.
func TestDemo_FixedTokenFailsAndEntrapgSucceeds(t *testing.T) {
	cmd, out, dir := program(t, "demo", "-for", "7s")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := out.String()
	for _, want := range []string{
		`queries failed +0 +[1-9]`,
		`logins rejected +0 +[1-9]`,
		`tokens requested +[2-9] +1`,
		`while a token was being replaced +\d+\.\d ms`,
		`at other times +\d+\.\d ms`,
		`(?s)^Two pools.*This takes about 7s\..*starting PostgreSQL`,
		`└ The access token has expired`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no match for %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("the output is colored, but it is not a terminal")
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > 80 || strings.HasSuffix(line, " ") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestDemo_EndsCleanlyOnSignalAtAnyMoment(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	for name, test := range map[string]struct {
		signal os.Signal
		after  string // text that must be printed first
	}{
		"SIGTERM while PostgreSQL starts": {syscall.SIGTERM, "starting PostgreSQL"},
		"SIGTERM while the pools work":    {syscall.SIGTERM, "1 s"},
		"SIGINT while the pools work":     {syscall.SIGINT, "1 s"},
		"SIGKILL while the pools work":    {syscall.SIGKILL, "1 s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, _, dir := program(t, "demo", "-for", "1h")
			pipe, err := os.CreateTemp(t.TempDir(), "out")
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			cmd.Stdout = pipe
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			printed := func() string {
				b, err := os.ReadFile(pipe.Name())
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			await(t, func() bool { return strings.Contains(printed(), test.after) }, printed)
			cmd.Process.Signal(test.signal)
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("ended with %v, want an exit code", err)
			}
			if test.signal != syscall.SIGKILL && exit.ExitCode() != command.Failed {
				t.Errorf("exit code %d, want %d", exit.ExitCode(), command.Failed)
			}
			// After SIGKILL another process cleans up, which takes a moment.
			for deadline := time.Now().Add(time.Minute); len(left(t, dir)) > 0 && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
			if entries := left(t, dir); len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

func TestCommand_WrongUseExitsWithCode2AndUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"dmeo"},
		{"demo", "-nosuch"},
		{"demo", "extra"},
		{"--nosuch"},
		{"help", "exec", "psql"},
		{"completion"},
		{"completion", "tcsh"},
		{"doctor", "--dsn"},
		{"doctor", "host=h", "--jsno"},
		{"demo", "-for", "1s"},
		{"demo", "-for", "long"},
		{"help", "dmeo"},
		{"exec"},
		{"exec", "--"},
		{"exec", "--", "psql"},
		{"exec", "host=h"},
		{"exec", "shop", "--", "psql"},
		{"token", "shop"},
		{"token", ""},
		{"token", "host=a", "host=b"},
		{"token", "host=a", "--dsn", "host=b"},
		{"whoami", "host=h user=u entra_credential=none", "--json"},
	} {
		cmd, out, _ := program(t, args...)
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != command.Misuse || out.Len() == 0 {
			t.Errorf("%q: %v, want exit code 2, and why:\n%s", args, err, out)
		}
	}
}

func TestHelp_ExitsWithCode0(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}, {"demo", "-h"}, {"exec", "--help"}, {"help", "token"}, {"whoami", "host=h", "--help"}} {
		cmd, out, _ := program(t, args...)
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "Usage: entrapg") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}
