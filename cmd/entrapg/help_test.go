package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// commands are the names of all commands that help lists.
var commands = []string{"exec", "doctor", "whoami", "token", "emulator", "demo", "proxy", "completion"}

func TestHelp_ListsCommandsAfterExamples(t *testing.T) {
	t.Parallel()
	r := runAs(t, nil, "help")
	if r.code != command.Done || !strings.Contains(r.stdout, "\n  entrapg exec -- psql\n") {
		t.Errorf("%+v", r)
	}
	for _, name := range commands {
		if !strings.Contains(r.stdout, "\n  "+name+" ") {
			t.Errorf("%s is missing:\n%s", name, r.stdout)
		}
	}
	if strings.Index(r.stdout, "entrapg exec -- psql") > strings.Index(r.stdout, "Usage:") {
		t.Errorf("the examples are not first:\n%s", r.stdout)
	}
	fits(t, r.stdout)
	for _, args := range [][]string{{"-h"}, {"--help"}} {
		if other := runAs(t, nil, args...); other != r {
			t.Errorf("%q: %+v", args, other)
		}
	}
	if bare := runAs(t, nil); bare.code != command.Misuse || bare.stderr != r.stdout || bare.stdout != "" {
		t.Errorf("without arguments: %+v", bare)
	}
}

func TestHelp_OfCommandShowsExamplesThenUsageThenFlags(t *testing.T) {
	t.Parallel()
	for _, name := range commands {
		r := runAs(t, nil, name, "--help")
		help := r.stdout
		usage, flags := strings.Index(help, "\nUsage: entrapg "+name), strings.Index(help, "\nFlags:\n  --")
		if r.code != command.Done || !strings.HasPrefix(help, "Examples:\n  ") || usage < 0 || flags < usage || strings.Contains(help, "`") {
			t.Errorf("%s: %+v", name, r)
		}
		fits(t, help)
		for _, args := range [][]string{{"help", name}, {name, "-h"}} {
			if other := runAs(t, nil, args...); other != r {
				t.Errorf("%q: %+v", args, other)
			}
		}
	}
	if r := runAs(t, nil, "help", "completion", "bash"); r.code != command.Done || !strings.Contains(r.stdout, "Usage: entrapg completion bash") {
		t.Errorf("%+v", r)
	}
}

func TestHelp_EveryFlagHasPlaceholderAndMeaning(t *testing.T) {
	referenceRoot(t).Walk(func(c *cli.Command) error {
		for _, f := range c.VisibleFlags() {
			term, text := flagText(f)
			words := strings.Fields(term)
			last := words[len(words)-1]
			if text == "" || f.(cli.DocGenerationFlag).TakesValue() != (last == strings.ToUpper(last)) || strings.HasSuffix(text, ".") {
				t.Errorf("%s: %s: %q", c.Name, term, text)
			}
			if _, isDuration := f.(*cli.DurationFlag); isDuration && last != "DURATION" {
				t.Errorf("%s: %s takes a duration", c.Name, term)
			}
		}
		return nil
	})
}

func TestHelp_DurationsHaveUnits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"emulator --help", "--token-life DURATION (default: 1h)"},
		{"demo --help", "--for DURATION (default: 20s)"},
		{"demo --for 9s --help", "--for DURATION (default: 20s)"},
	} {
		term, initial, _ := strings.Cut(test.want, " (")
		r := runAs(t, nil, strings.Fields(test.args)...)
		if !strings.Contains(r.stdout, term) || !strings.Contains(r.stdout, " ("+initial) {
			t.Errorf("%s: no %s:\n%s", test.args, test.want, r.stdout)
		}
	}
}

func TestHelp_ShowsEnvironmentVariablesOfFlags(t *testing.T) {
	t.Setenv("ENTRAPG_TEST_LISTEN", "127.0.0.9:1")
	t.Setenv("PSHOME", "as in PowerShell, which writes variables with $")
	c := &cli.Command{Name: "relay", Flags: []cli.Flag{&cli.StringFlag{
		Name: "listen", Usage: "`ADDRESS` to listen on", Value: "127.0.0.1:6432", Sources: cli.EnvVars("ENTRAPG_TEST_LISTEN"),
	}}}
	var help bytes.Buffer
	cli.HelpPrinter(&help, cli.CommandHelpTemplate, c)
	if text := help.String(); !strings.Contains(text, `
  --listen ADDRESS      ADDRESS to listen on (default: "127.0.0.1:6432")
                        [$ENTRAPG_TEST_LISTEN]
`) {
		t.Error(text)
	}
}

func TestHelp_NamesOfCommandsAreArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"whoami", "help"}, {"token", "h"}, {"demo", "help"}} {
		if r := runAs(t, nil, args...); r.code != command.Misuse || r.stdout != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestVersion_IsPrintedByFlagAndCommand(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--version", "-v", "version"} {
		if r := runAs(t, nil, arg); r.code != command.Done || !strings.HasPrefix(r.stdout, "entrapg version ") || len(strings.Fields(r.stdout)) != 3 {
			t.Errorf("%s: %+v", arg, r)
		}
	}
}

func TestMisuse_NamesCommandFlagAndCorrection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		want string
	}{
		{"dcotor", `unknown command "dcotor"; did you mean "doctor"?`},
		{"dcotor host=h --json", `unknown command "dcotor"; did you mean "doctor"?`},
		{"who", `unknown command "who"; did you mean "whoami"?`},
		{"odctor", `unknown command "odctor"; did you mean "doctor"?`},
		{"migrate", `unknown command "migrate"; 'entrapg help' lists the commands`},
		{"help emulater", `unknown command "emulater"; did you mean "emulator"?`},
		{"--help emulater", `unknown command "emulater"; 'entrapg help' lists the commands`},
		{"--versin", `unknown flag "--versin"; did you mean "--version"?`},
		{"whoami --jsn", `whoami: unknown flag "--jsn"; did you mean "--json"?`},
		{"whoami host=h -json --color", `whoami: unknown flag "--color"; see 'entrapg whoami --help'`},
		{"token --dsn", `token: --dsn: missing value`},
		{"doctor --dsn=", `doctor: --dsn: invalid value ""; must not be empty`},
		{"doctor --dsn host=a --dsn host=b", `doctor: --dsn: set twice; remove one`},
		{"demo --for 5", `demo: --for: invalid value "5"; must be a number with a unit, such as 90s, 5m or 1h`},
		{"demo --for 2s", `demo: --for: invalid value "2s"; must be at least 6s`},
		{"token host=a port=1", `unexpected second DSN; write all settings in one argument: 'host=NAME dbname=NAME'`},
		{"token postgres://a host=b", `unexpected second DSN; remove one`},
		{"token host=a again", `unexpected argument "again"`},
		{"demo now", `demo: unexpected argument "now"`},
		{"doctor --json=maybe", `doctor: --json: invalid value "maybe"; must be true or false`},
		{"completion", `completion: missing shell; must be bash, zsh, fish or pwsh`},
		{"completion tcsh", `completion: unknown shell "tcsh"; must be bash, zsh, fish or pwsh`},
		{"exec --dns host=h -- psql --help", `exec: unknown flag "--dns"; did you mean "--dsn"?`},
		{"\x1b[2Jdoctor", `unknown command "\x1b[2Jdoctor"; 'entrapg help' lists the commands`},
		{"doctor --\x1b[2J", `doctor: unknown flag "--\x1b[2J"; see 'entrapg doctor --help'`},
	} {
		if r := runAs(t, nil, strings.Fields(test.args)...); r.code != command.Misuse || r.stderr != "entrapg: "+test.want+"\n" || r.stdout != "" {
			t.Errorf("%s: %+v", test.args, r)
		}
	}
}

func TestMisuse_InvalidVariableIsNamed(t *testing.T) {
	t.Setenv("ENTRAPG_TEST_WAIT", "5")
	c := &cli.Command{
		Name: "relay", ExitErrHandler: rootCommand(command.Streams{}).ExitErrHandler,
		Flags: []cli.Flag{&cli.DurationFlag{Name: "wait", Sources: cli.EnvVars("ENTRAPG_TEST_WAIT")}},
	}
	err := c.Run(t.Context(), []string{"relay"})
	if got := command.UsageErrorOf(err).Error(); got != `ENTRAPG_TEST_WAIT: invalid value "5"; must be a number with a unit, such as 90s, 5m or 1h` {
		t.Error(got)
	}
}

func TestArguments_SeparatorOfExecIsKept(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"exec -- psql -X", "exec -- -- psql -X"},
		{"exec host=h --env-file f -- psql -- x", "exec host=h --env-file f -- -- psql -- x"},
		{"exec host=h", "exec host=h"},
		{"doctor -- host=h", "doctor -- host=h"},
		{"help exec", "help exec"},
		{"", ""},
	} {
		if got := keepSeparator(strings.Fields(test.args)); !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s: got %q, want %s", test.args, got, test.want)
		}
	}
}
