package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// emulate starts an emulator on ports of its own and returns the file with its
// settings, what it has said so far, and how to stop it.
func emulate(t *testing.T, args ...string) (envFile string, said func() string, stop func(os.Signal) int) {
	t.Helper()
	envFile = filepath.Join(t.TempDir(), ".env")
	args = append([]string{"emulator", "--addr", "127.0.0.1:0", "--tenant-addr", "127.0.0.1:0", "--identity-addr", "127.0.0.1:0", "--upstream", azureServer(t).AdminDSN(), "--env-file", envFile}, args...)
	cmd, _, dir := program(t, args...)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said = func() string {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	await(t, func() bool {
		select {
		case <-ended:
			t.Fatalf("it ended at once:\n%s", said())
		default:
		}
		return strings.Contains(said(), "Logins:")
	}, said)
	return envFile, said, func(signal os.Signal) int {
		cmd.Process.Signal(signal)
		<-ended
		if entries := left(t, dir); len(entries) > 0 {
			t.Errorf("left behind: %v", entries)
		}
		return cmd.ProcessState.ExitCode()
	}
}

// await waits until something is so.
func await(t *testing.T, so func() bool, said func() string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that:\n%s", said())
		}
	}
}

func TestEmulator_ServesProgramsThatReadItsSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "principals")
	principals := "# who there is\nuser emma@contoso.example\nidentity emu-api\nidentity emu-later\ngroup emu-readers emma@contoso.example\nservice emu-deployer\nadmin emu-admin\n"
	if err := os.WriteFile(file, []byte(principals), 0o600); err != nil {
		t.Fatal(err)
	}
	envFile, said, stop := emulate(t, "--principals", file, "--no-roles", "--token-life", "90s")
	psql := installed(t, "psql")
	log := func(want string) { t.Helper(); await(t, func() bool { return strings.Contains(said(), want) }, said) }

	if r := runAs(t, nil, "exec", "--env-file", envFile, "--", psql, "-XAtc", "select 1"); r.code == 0 {
		t.Errorf("in without a role: %+v", r)
	}
	log("· emu-api → postgres, psql: the role is not mapped to Entra")

	_, admin, _ := strings.Cut(said(), "Entra administrator")
	_, id, _ := strings.Cut(admin, "AZURE_CLIENT_ID=")
	id, _, _ = strings.Cut(id, "\n")
	b, err := os.ReadFile(envFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "AZURE_CLIENT_ID=") {
			lines[i] = "AZURE_CLIENT_ID=" + id
		}
	}
	adminFile := filepath.Join(t.TempDir(), "admin.env")
	if err := os.WriteFile(adminFile, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	script := "select * from pgaadauth_create_principal('emu-api', false, false); select rolename from pgaadauth_list_principals(false) order by 1"
	if r := runAs(t, nil, "exec", "--env-file", adminFile, "--", psql, "-XAtc", script); r.code != 0 || !strings.Contains(r.stdout, "Created role for \"emu-api\"\n") || !strings.Contains(r.stdout, "emu-admin\nemu-api\n") {
		t.Errorf("provisioning: %+v", r)
	}
	log("✓ emu-admin → postgres, psql: accepted")
	if r := runAs(t, nil, "exec", "--env-file", envFile, "--", psql, "-XAtc", "select session_user"); r.code != 0 || r.stdout != "emu-api\n" {
		t.Errorf("%+v", r)
	}
	if r := runAs(t, nil, "whoami", "--env-file", envFile); r.code != 0 || !strings.Contains(r.stdout, "1m ") {
		t.Errorf("a token of 90 seconds: %+v", r)
	}
	if r := runAs(t, []string{"PGUSER=emu-admin"}, "exec", "--env-file", envFile, "--", psql, "-XAtc", "select 1"); r.code == 0 {
		t.Errorf("in as somebody else: %+v", r)
	}
	log("✗ emu-admin → postgres, psql: 28000 the role is mapped to somebody else")

	for line := range strings.Lines(said()) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > 80 && !strings.HasPrefix(line, "export ") && !strings.Contains(line, envFile) {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if runtime.GOOS == "windows" {
		stop(os.Kill)
		return
	}
	if code := stop(syscall.SIGTERM); code != done {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(envFile); err == nil {
		t.Error("the settings of a server that is gone are left")
	}
}

func TestEmulator_KeepsFilesThatItDidNotCreate(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM for it to end at")
	}
	const own = "SECRET=mine\n"
	envFile := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(envFile, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	r := runAs(t, nil, "emulator", "--addr", "127.0.0.1:0", "--tenant-addr", "127.0.0.1:0", "--identity-addr", "127.0.0.1:0", "--upstream", azureServer(t).AdminDSN(), "--identity", "env-own", "--admin", "env-own-admin", "--env-file", envFile)
	if b, err := os.ReadFile(envFile); r.code != failed || !strings.Contains(r.stderr, envFile+" is there already") || err != nil || string(b) != own {
		t.Errorf("%+v\n%v: %q", r, err, b)
	}

	envFile, _, stop := emulate(t, "--identity", "env-new", "--admin", "env-new-admin")
	if info, err := os.Stat(envFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v: mode %v", err, info.Mode())
	}
	if err := os.Rename(envFile, envFile+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(envFile, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	stop(syscall.SIGTERM)
	if b, err := os.ReadFile(envFile); err != nil || string(b) != own {
		t.Errorf("%v: %q", err, b)
	}
}

// What it prints is for a shell to read.
func TestEmulator_SettingsCanBePastedIntoShell(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there is no such shell")
	}
	_, said, stop := emulate(t, "--identity", "pasted", "--admin", "paste-admin")
	var block strings.Builder
	for line := range strings.Lines(said()) {
		if strings.HasPrefix(line, "export ") {
			block.WriteString(line)
		}
	}
	block.WriteString(`"$0" token >/dev/null && "$0" exec -- sh -c 'echo "$PGUSER"'; echo "$PGPASSWORD" | cut -c1-3; ls "$PGSSLROOTCERT" "$NODE_EXTRA_CA_CERTS" >/dev/null` + "\n")
	cmd, out, _ := program(t)
	cmd.Path, cmd.Args = "/bin/sh", []string{"/bin/sh", "-c", block.String(), os.Args[0]}
	if err := cmd.Run(); err != nil || out.String() != "pasted\neyJ\n" {
		t.Errorf("%v: %s", err, out)
	}
	if code := stop(syscall.SIGINT); code != done {
		t.Errorf("exit code %d", code)
	}
}

func TestEmulator_ReportsInvalidPrincipals(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "principals")
	if err := os.WriteFile(file, []byte("identity a\nrobot b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--principals", file}, "line 2"},
		{[]string{"--token-life", "1ms"}, "--token-life"},
		{[]string{"extra"}, "extra"},
	} {
		r := runAs(t, nil, append([]string{"emulator"}, test.args...)...)
		if r.code != misuse || !strings.Contains(r.stderr, test.says) {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
}
