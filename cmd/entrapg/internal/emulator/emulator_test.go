package emulator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Another user could have created a file that resembles one of an earlier emulator, or
// have opened one while others could read it.
func TestEmulator_WritesNothingIntoFileOfEarlierEmulator(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	content := fmt.Sprintf(settingsHeader, sha256.Sum256(nil))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, path+".other"); err != nil {
		t.Skip(err)
	}
	file, err := reserveSettingsFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.write([]variable{{"PGPASSWORD", "secret"}}); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{path: true, path + ".other": false} {
		if b, err := os.ReadFile(name); err != nil || strings.Contains(string(b), "secret") != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := file.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after remove: %v", err)
	}
}

func TestEmulator_EnvFileAppearsWhenItIsComplete(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	file, err := reserveSettingsFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before its settings are known: %v", err)
	}
	if _, err := reserveSettingsFile(path, 0o600); err == nil || !strings.Contains(err.Error(), path+" is in use by another emulator") {
		t.Errorf("beside an emulator that starts: %v", err)
	}
	if err := file.write([]variable{{"PGUSER", "shop-api"}}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "PGUSER='shop-api'\n") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := reserveSettingsFile(path, 0o600); err == nil || !strings.Contains(err.Error(), path+" is in use by another emulator") {
		t.Errorf("beside an emulator that runs: %v", err)
	}
	if err := file.remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEmulator_EnvFileReplacesNoFileThatAppearsDuringStart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	file, err := reserveSettingsFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := file.write([]variable{{"PGUSER", "shop-api"}}); err == nil || !strings.Contains(err.Error(), path+" already exists") {
		t.Errorf("got %v", err)
	}
	if err := file.remove(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if b, unread := os.ReadFile(path); err != nil || unread != nil || string(b) != "mine" || len(left) != 1 {
		t.Errorf("%q, %v, %v, %v", b, unread, left, err)
	}
}

func TestEmulator_EnvFileOfEmulatorKilledDuringStartIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".env")
	killed, err := reserveSettingsFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	killed.file.Close()
	file, err := reserveSettingsFile(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.remove(); err != nil {
		t.Error(err)
	}
}

func TestEmulator_PrintsLinesForPowerShell(t *testing.T) {
	t.Parallel()
	lines := powershell.lines(
		[]variable{
			{"PGUSER", "o'brien ‘x’ $y `z"},
			{"AZURE_CLIENT_ID", ""},
			{"AZURE_USERNAME", ""},
			{"PGSSLROOTCERT", `C:\Users\Ann Lee\ca.pem`},
		},
	)
	want := "$env:PGUSER = 'o''brien ‘‘x’’ $y `z'\n$env:PGSSLROOTCERT = 'C:\\Users\\Ann Lee\\ca.pem'\n" +
		"Remove-Item Env:AZURE_CLIENT_ID, Env:AZURE_USERNAME -ErrorAction Ignore\n"
	if lines != want {
		t.Errorf("got %s", lines)
	}
	none := func(string) string { return "" }
	msys := func(name string) string { return map[string]string{"MSYSTEM": "MINGW64"}[name] }
	if syntaxFor("windows", none) != powershell || syntaxFor("windows", msys) != posix || syntaxFor("linux", none) != posix ||
		syntaxFor("darwin", none) != posix {
		t.Error("wrong syntax")
	}
	pwsh, err := exec.LookPath("pwsh")
	if err != nil {
		return // installed in CI only
	}
	out, err := exec.CommandContext(t.Context(), pwsh, "-NoProfile", "-Command", lines+"Write-Output $env:PGUSER").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "o'brien ‘x’ $y `z" {
		t.Errorf("%v: %s", err, out)
	}
}
