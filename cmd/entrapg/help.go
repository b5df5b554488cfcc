package main

//go:generate sh -c "go run . help --markdown >../../docs/cli.md.new && mv ../../docs/cli.md.new ../../docs/cli.md || { rm -f ../../docs/cli.md.new; exit 1; }"

import (
	"context"
	"flag"
	"fmt"
	"runtime/debug"
	"strings"
)

var helpCommand = &command{
	name: "help", takes: "[COMMAND]",
	summary: "show what there is, or how to use a command",
	example: "entrapg help exec\nentrapg exec --help",
	about:   "Shows all commands, or one. With --markdown it writes the reference that is docs/cli.md.",
	setup: func(flags *flag.FlagSet) runner {
		markdown := flags.Bool("markdown", false, "write the reference of all commands")
		return func(_ context.Context, args []string, std streams) error {
			switch {
			case *markdown:
				std.out.printf("%s", reference())
			case len(args) == 0:
				std.out.printf("%s", usage())
			default:
				c := find(args[0])
				if c == nil {
					return wrongUse(fmt.Sprintf("help: there is no command %q", args[0]))
				}
				std.out.printf("%s", c.help())
			}
			return nil
		}
	},
}

// helpWidth is what help is written for.
const helpWidth = 80

func usage() string {
	var b strings.Builder
	b.WriteString("Logs in to Azure Database for PostgreSQL with Microsoft Entra ID.\n\n")
	for line := range strings.SplitSeq(execCommand.example, "\n") {
		b.WriteString("  " + line + "\n")
	}
	b.WriteString("\nUsage: entrapg COMMAND [--help]\n\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-12s%s\n", c.name, c.summary)
	}
	b.WriteString("\nExit codes: 0, 1 for a failure, 2 for wrong use; exec ends with its command's.\n")
	return b.String()
}

func (c *command) usage() string {
	usage := "entrapg " + c.name
	if len(c.flags()) > 0 {
		usage += " [--FLAG ...]"
	}
	if c.takes != "" {
		usage += " " + c.takes
	}
	return usage
}

func (c *command) help() string {
	var b strings.Builder
	b.WriteString("Examples:\n")
	for line := range strings.SplitSeq(c.example, "\n") {
		b.WriteString("  " + line + "\n")
	}
	b.WriteString("\nUsage: " + c.usage() + "\n")
	for paragraph := range strings.SplitSeq(c.about, "\n") {
		b.WriteString("\n" + strings.Join(wrap(paragraph, helpWidth), "\n") + "\n")
	}
	if flags := c.flags(); len(flags) > 0 {
		b.WriteString("\nFlags:\n")
		for _, f := range flags {
			head := "  --" + f.name
			if f.value != "" {
				head += " " + f.value
			}
			const column = 24
			if len(head)+2 > column {
				b.WriteString(head + "\n")
				head = ""
			}
			for _, line := range wrap(f.usage, helpWidth-column) {
				fmt.Fprintf(&b, "%-*s%s\n", column, head, line)
				head = ""
			}
		}
	}
	return b.String()
}

// An option is a flag as help shows it.
type option struct{ name, value, usage string }

// flags lists a command's flags, sorted by name.
func (c *command) flags() []option {
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.setup(set)
	var all []option
	set.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		all = append(all, option{f.Name, value, usage})
	})
	return all
}

// reference is docs/cli.md.
func reference() string {
	var b strings.Builder
	b.WriteString("# entrapg, the command\n\n<!-- Written by `entrapg help --markdown`; change the commands' own texts instead. -->\n\n")
	b.WriteString("    go install github.com/entrapg/entrapg/cmd/entrapg@latest\n\n| command | what it does |\n|---|---|\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "| [`%s`](#entrapg-%s) | %s |\n", c.name, c.name, c.summary)
	}
	b.WriteString("\nExit codes: 0, 1 for a failure, 2 for wrong use. `exec` ends with the code of the command " +
		"that it runs. Color is for terminals, and not where `NO_COLOR` is set.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\n## entrapg %s\n\n", c.name)
		for line := range strings.SplitSeq(c.example, "\n") {
			b.WriteString("    " + line + "\n")
		}
		fmt.Fprintf(&b, "\nUsage: `%s`\n", c.usage())
		for paragraph := range strings.SplitSeq(c.about, "\n") {
			b.WriteString("\n" + paragraph + "\n")
		}
		if flags := c.flags(); len(flags) > 0 {
			b.WriteString("\n| flag | |\n|---|---|\n")
			for _, f := range flags {
				fmt.Fprintf(&b, "| `%s` | %s |\n", strings.TrimSpace("--"+f.name+" "+f.value), f.usage)
			}
		}
	}
	return b.String()
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
