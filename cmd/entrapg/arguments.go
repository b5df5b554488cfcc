package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// keepSeparator prepares arguments for urfave/cli, which parses flags up to a --
// and drops it. Exec gets a -- that the user wrote as an argument, and nothing
// of its command is parsed.
func keepSeparator(root *cli.Command, args []string) []string {
	if len(args) == 0 {
		return args
	}
	c := root.Command(args[0])
	if c == nil || c.Name != "exec" {
		return args
	}
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return slices.Insert(slices.Clone(args), i, "--")
		case strings.HasPrefix(arg, "-"):
			if takesNext(c.Flags, arg) {
				i++
			}
		case !isDSN(arg): // the command, without a --
			return slices.Insert(slices.Clone(args), i, "--")
		}
	}
	return args
}

// takesNext reports whether a flag's value is the next argument.
func takesNext(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	for _, f := range flags {
		if d, ok := f.(cli.DocGenerationFlag); ok && slices.Contains(f.Names(), name) {
			return d.TakesValue()
		}
	}
	return false
}
