package command

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/spelling"
)

// UsageError is an error in the arguments of a command. The exit code is 2.
type UsageError string

func (w UsageError) Error() string { return string(w) }

// UnknownCommand returns the error for a name that is not a command of c.
func UnknownCommand(c *cli.Command, name string) error {
	return UsageError(fmt.Sprintf("unknown command %q; %s", name,
		suggest(name, cli.SuggestCommand(c.VisibleCommands(), name), "'entrapg help' lists the commands")))
}

// OnUsageError is the OnUsageError of all commands.
func OnUsageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	if c == c.Root() && c.Args().Present() { // a flag of an unknown command
		return UnknownCommand(c, c.Args().First())
	}
	wrong := UsageErrorOf(err)
	if flag, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		dashes := "--"
		if len(flag) == 1 {
			dashes = "-"
		}
		wrong = UsageError(fmt.Sprintf("unknown flag %q; %s", dashes+flag,
			suggest(flag, cli.SuggestFlag(c.VisibleFlags(), flag, false), "see '"+c.FullName()+" --help'")))
	}
	if c == c.Root() {
		return wrong
	}
	return UsageError(strings.TrimPrefix(c.FullName(), "entrapg ")) + ": " + wrong
}

// suggest returns the question whether best is meant. If best is too different from
// the word, it returns help.
func suggest(word, best, help string) string {
	name := strings.TrimLeft(best, "-")
	begins := word != "" && strings.HasPrefix(name, word)
	if name == "" || !begins && spelling.Distance(word, name) > max(2, len(name)/3) {
		return help
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// rewordings convert the errors of urfave/cli, which have no types.
var rewordings = []struct {
	theirs *regexp.Regexp
	ours   string
}{
	{regexp.MustCompile(`(?s)^flag needs an argument: (.*)$`), "$1: missing value"},
	{regexp.MustCompile(`(?s)^invalid value (".*") for flag -(\S+): (.*)$`), "--$2: invalid value $1; $3"},
	{
		regexp.MustCompile(`(?s)^could not parse (".*") as .* from environment variable "(.*)" for flag \S+: (.*)$`),
		"$2: invalid value $1; $3",
	},
	{regexp.MustCompile(`(?s)^No help topic for '(.*)'$`), `unknown command "$1"; 'entrapg help' lists the commands`},
	{regexp.MustCompile(`; time: .*$`), "; must be a number with a unit, such as 90s, 5m or 1h"},
	{regexp.MustCompile(`: invalid value ".*"; can't duplicate this flag$`), ": set twice; remove one"},
	{regexp.MustCompile(`; parse error$`), "; must be true or false"},
	{regexp.MustCompile(`; strconv\.\w+: parsing ".*": `), "; must be a number: "},
}

// UsageErrorOf converts an error of urfave/cli to a UsageError.
func UsageErrorOf(err error) UsageError {
	text := err.Error()
	for _, r := range rewordings {
		text = r.theirs.ReplaceAllString(text, r.ours)
	}
	return UsageError(text)
}

// NoArguments is the ArgValidator of commands without arguments.
func NoArguments(_ context.Context, c *cli.Command) error {
	if c.Args().Present() {
		return UsageError(fmt.Sprintf("%s: unexpected argument %q", c.Name, c.Args().First()))
	}
	return nil
}
