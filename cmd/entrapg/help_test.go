package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestHelp_ShowsExampleFirstAndFits(t *testing.T) {
	if !strings.Contains(usage(), "\n  entrapg exec -- psql\n") {
		t.Error("the usage shows no example")
	}
	fits(t, usage())
	for _, c := range commands {
		help := c.help()
		if !strings.HasPrefix(help, "Examples:\n  ") || !strings.Contains(help, "entrapg "+c.name) || !strings.Contains(help, "\nUsage: entrapg "+c.name) {
			t.Errorf("%s:\n%s", c.name, help)
		}
		for _, f := range c.flags() {
			if !strings.Contains(help, "--"+f.name) || f.usage == "" {
				t.Errorf("%s: --%s is not explained", c.name, f.name)
			}
		}
		if !strings.Contains(usage(), "  "+c.name+" ") || strings.Contains(help, "`") {
			t.Errorf("%s is missing in the usage, or has a stray quote:\n%s", c.name, help)
		}
		fits(t, help)
	}
}

func TestHelp_ReferenceMatchesCommandOutput(t *testing.T) {
	const path = "../../docs/cli.md"
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(string(written), "\r\n", "\n") != reference() {
		t.Errorf("%s is old: go generate ./cmd/entrapg", path)
	}
}

func TestCompletion_ShellsParseTheirScripts(t *testing.T) {
	for shell, check := range map[string]string{"bash": "-n", "zsh": "-n", "fish": "--no-execute"} {
		t.Run(shell, func(t *testing.T) {
			r := runAs(t, nil, "completion", shell)
			for _, c := range commands {
				if !strings.Contains(r.stdout, c.name) {
					t.Errorf("the script does not complete %s", c.name)
				}
				for _, f := range c.flags() {
					if !strings.Contains(r.stdout, f.name) {
						t.Errorf("the script does not complete %s --%s", c.name, f.name)
					}
				}
			}
			if runtime.GOOS == "windows" && shell != "bash" {
				t.Skip("Windows does not have this shell")
			}
			path := lookPath(t, shell)
			file := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(path, check, file).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestCompletion_BashCompletesCommandsFlagsAndExecArguments(t *testing.T) {
	path := lookPath(t, "bash")
	script := bash() + `
complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _entrapg; echo "${COMPREPLY[*]}"; }
complete_line entrapg em
complete_line entrapg whoami --j
complete_line entrapg completion z
complete_line entrapg exec host=h -- bas
complete_line entrapg emulator --principals help_t
`
	out, err := exec.Command(path, "-c", script).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 5 || lines[4] != "help_test.go" || lines[0] != "emulator" || lines[1] != "--json" || lines[2] != "zsh" || !strings.Contains(" "+lines[3]+" ", " bash ") {
		t.Errorf("%v: %q", err, lines)
	}
}
