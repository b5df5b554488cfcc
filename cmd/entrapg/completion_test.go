package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// completions are lines up to the cursor, with a word that a shell offers there and
// one that it does not offer.
var completions = []struct{ line, want, not string }{
	{"entrapg em", "emulator", "exec"},
	{"entrapg ", "completion", "version"},
	{"entrapg whoami --j", "--json", "--dsn"},
	{"entrapg whoami --", "--env-file", "--principals"},
	{"entrapg emulator --identity a --no", "--no-roles", "--identity"},
	{"entrapg completion ", "zsh", "help"},
	{"entrapg help do", "doctor", "demo"},
	{"entrapg exec --", "--dsn", "--json"},
	{"entrapg exec host=h -- ba", "bash", "--dsn"},
	{"entrapg exec -- cat princ", "principals.txt", "--principals"},
	{"entrapg whoami --env-file princ", "principals.txt", "--json"},
	{"entrapg whoami $(touch evaluated) --j", "--json", "--dsn"},
}

func TestCompletion_BashOffersMatchingWords(t *testing.T) {
	completeIn(t, "bash", `
source ./script
set -f
for line in "$@"; do
	COMP_WORDS=($line)
	[[ $line != *" " ]] || COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_entrapg
	# As complete -o default does.
	((${#COMPREPLY[@]})) || COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
	echo "${COMPREPLY[@]}"
done
`, "--norc")
}

func TestCompletion_FishOffersMatchingWords(t *testing.T) {
	completeIn(t, "fish", `
source script
for line in $argv
	complete -C $line | string replace -r '\t.*' '' | string join ' '
end
true # no match is no failure
`, "--no-config")
}

// Zsh completes only in a terminal. The test uses one of its module zpty, in which a
// function records the matches.
func TestCompletion_ZshOffersMatchingWords(t *testing.T) {
	completeIn(t, "zsh", `
zmodload zsh/zpty
zpty shell "TERM=dumb zsh -f -i"
zpty -w shell '
	autoload -U compinit; compinit -u -D; source ./script
	compadd() {
		if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
			local -a found; builtin compadd -O found "$@"; print -rn -- "$found " >>matches
		fi
		builtin compadd "$@"
	}
	finish() { BUFFER=; print fin""ished }
	zle -N finish; bindkey "^Xf" finish'
for line in "$@"; do
	zpty -w -n shell "$line"$'\t\x18f'
	zpty -r shell seen '*finished*'
	cat matches
	echo
	rm -f matches
done
`, "-f")
}

// completeIn runs a shell script that prints, for each argument, a line with the
// words that the shell offers.
func completeIn(t *testing.T, shell, script string, flags ...string) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the scripts of these tests are for Unix")
	}
	path := lookPath(t, shell)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, work := filepath.Join(dir, "bin"), filepath.Join(dir, "work")
	for _, d := range []string{bin, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(bin, "entrapg")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"script": runAs(t, nil, "completion", shell).stdout, "principals.txt": "", "main": script,
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), path, append(flags, "main")...)
	for _, c := range completions {
		cmd.Args = append(cmd.Args, c.line)
	}
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "ENTRAPG_TEST_AS_COMMAND=1", "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(string(out), "\n")
	if err != nil || len(lines) != len(completions)+1 {
		t.Fatalf("%v: %s", err, out)
	}
	for i, c := range completions {
		offered := strings.Fields(lines[i])
		if !slices.Contains(offered, c.want) || slices.Contains(offered, c.not) {
			t.Errorf("%s: got %q, want %s and not %s", c.line, offered, c.want, c.not)
		}
	}
	if _, err := os.Stat(filepath.Join(work, "evaluated")); err == nil {
		t.Error("the line was evaluated")
	}
}

func TestCompletion_ScriptForEachShell(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		r := runAs(t, nil, "completion", shell)
		if r.code != command.Done || !strings.Contains(r.stdout, completionFlag) {
			t.Errorf("%s: %+v", shell, r)
		}
	}
}
