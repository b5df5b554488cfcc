package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"
)

// wrongUse is an error in how a command is used. It ends with exit code 2.
type wrongUse string

func (w wrongUse) Error() string { return string(w) }

// unknownCommand reports a name that is not one of the commands of c.
func unknownCommand(c *cli.Command, name string) error {
	help := "'entrapg help' lists the commands"
	if c != c.Root() {
		help = "'" + c.FullName() + " --help' lists them"
	}
	if known := cli.SuggestCommand(c.VisibleCommands(), name); similar(name, known) {
		help = fmt.Sprintf("did you mean %q?", known)
	}
	return wrongUse(fmt.Sprintf("unknown command %q; %s", name, help))
}

// usageError rewords what urfave/cli reports of the arguments of c, which has
// no types for it.
func usageError(c *cli.Command, err error) error {
	if c == c.Root() && c.Args().Present() { // flags of a command that does not exist
		return unknownCommand(c, c.Args().First())
	}
	wrong := misuseOf(err)
	if flag, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		help := "see '" + c.FullName() + " --help'"
		if known := cli.SuggestFlag(c.VisibleFlags(), flag, false); similar(flag, strings.TrimLeft(known, "-")) {
			help = fmt.Sprintf("did you mean %q?", known)
		}
		wrong = wrongUse(fmt.Sprintf("unknown flag %q; %s", dashed(flag), help))
	}
	if c == c.Root() {
		return wrong
	}
	return wrongUse(strings.TrimPrefix(c.FullName(), "entrapg ")) + ": " + wrong
}

var (
	missingValue = regexp.MustCompile(`(?s)^flag needs an argument: -*(.*)$`)
	badValue     = regexp.MustCompile(`(?s)^invalid value (".*") for flag -(\S+): (.*)$`)
	badTopic     = regexp.MustCompile(`(?s)^No help topic for '(.*)'$`)
	badVariable  = regexp.MustCompile(`(?s)^could not parse (".*") as \S+ value from environment variable "(.*?)" for flag \S+: (.*)$`)
)

// misuseOf rewords errors of urfave/cli that do not depend on the command.
func misuseOf(err error) wrongUse {
	text := err.Error()
	if m := missingValue.FindStringSubmatch(text); m != nil {
		return wrongUse(dashed(m[1]) + ": missing value")
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return wrongUse(fmt.Sprintf("%s: invalid value %s%s", dashed(m[2]), m[1], cause(m[3])))
	}
	if m := badVariable.FindStringSubmatch(text); m != nil {
		return wrongUse(fmt.Sprintf("%s: invalid value %s%s", m[2], m[1], cause(m[3])))
	}
	if m := badTopic.FindStringSubmatch(text); m != nil {
		return wrongUse(fmt.Sprintf("unknown command %q; 'entrapg help' lists the commands", m[1]))
	}
	return wrongUse(text)
}

// cause says what a value must be.
func cause(text string) string {
	switch {
	case strings.HasPrefix(text, "time: "):
		return "; must be a number with a unit, such as 90s, 5m or 1h"
	case text == "parse error": // of flags without a value
		return "; must be true or false"
	case strings.HasPrefix(text, "strconv."):
		return "; must be a number"
	default:
		return "; " + text
	}
}

func dashed(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

// similar reports whether most letters of two names are the same: the best
// suggestion for a word may still be far from it.
func similar(a, b string) bool {
	if a == "" || b == "" || strings.HasPrefix(b, a) {
		return a != "" && b != ""
	}
	shared := 0
	rest := b
	for _, letter := range a {
		if i := strings.IndexRune(rest, letter); i >= 0 {
			shared++
			rest = rest[:i] + rest[i+1:]
		}
	}
	return shared*3 >= 2*max(len(a), len(b))
}

// noArguments rejects arguments other than flags.
func noArguments(_ context.Context, c *cli.Command) error {
	if c.Args().Present() {
		return wrongUse(fmt.Sprintf("%s: unexpected argument %q", c.Name, c.Args().First()))
	}
	return nil
}
