package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// helpCommand replaces urfave/cli's, for which a help flag is an error.
func helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", ArgsUsage: "[COMMAND]",
		Usage:         "list the commands, or show how to use one",
		UsageText:     "entrapg help exec\nentrapg exec --help",
		Description:   "Lists all commands, or shows how to use one of them.",
		ShellComplete: func(ctx context.Context, c *cli.Command) { completeFlags(ctx, c.Root()) },
		Action: func(_ context.Context, c *cli.Command) error {
			topic := c.Root()
			for _, name := range c.Args().Slice() {
				sub := topic.Command(name)
				if sub == nil {
					return command.UnknownCommand(topic, name)
				}
				topic = sub
			}
			showHelp(topic)
			return nil
		},
	}
}

func showHelp(c *cli.Command) {
	template := cli.CommandHelpTemplate
	if c == c.Root() {
		template = cli.RootCommandHelpTemplate
	}
	cli.HelpPrinter(c.Root().Writer, template, c)
}

// helpWidth is the number of columns of help.
const helpWidth = 80

// The UsageText of a command contains its examples: urfave/cli has no other field
// for them.
func init() {
	cli.RootCommandHelpTemplate = `{{sentence .Usage}}

{{indent 2 .UsageText}}

Usage: entrapg COMMAND [FLAGS]

Commands:
{{range .VisibleCommands}}{{columns 14 .Name .Usage}}{{end}}
'entrapg help COMMAND' shows how to use a command.

Flags:
{{range .VisibleFlags}}{{flag .}}{{end}}
Exit codes: 0 for success, 1 for failure, 2 for incorrect usage. exec ends with
the exit code of the program that it runs.
`
	cli.CommandHelpTemplate = `{{with .UsageText}}Examples:
{{indent 2 .}}

{{end}}Usage: {{usage .}}
{{with .Description}}
{{wrap (paragraphs .) 0}}
{{end}}{{with .VisibleCommands}}
Commands:
{{range .}}{{columns 14 .Name .Usage}}{{end}}{{end}}
Flags:
{{range .VisibleFlags}}{{flag .}}{{end}}`
	cli.SubcommandHelpTemplate = cli.CommandHelpTemplate
	cli.HelpPrinter = func(w io.Writer, template string, data any) {
		cli.HelpPrinterCustom(w, template, data, map[string]any{
			"wrapAt": func() int { return helpWidth },
			"usage":  usageLine, "columns": columns,
			"flag": func(f cli.Flag) string {
				term, text := flagText(f)
				return columns(24, term, text)
			},
			"paragraphs": func(s string) string { return strings.ReplaceAll(s, "\n", "\n\n") },
			"sentence":   func(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." },
		})
	}
}

// flagText returns a flag as it is written, and its meaning with its default and
// environment variables. Durations are written as 5m, not 5m0s.
func flagText(f cli.Flag) (term, text string) {
	term, text, _ = strings.Cut(f.String(), "\t")
	return term, strings.NewReplacer("h0m0s)", "h)", "m0s)", "m)").Replace(text)
}

func usageLine(c *cli.Command) string {
	return strings.TrimSpace(c.FullName() + " [FLAGS] " + c.ArgsUsage)
}

// columns writes a term, and a text from the given column on.
func columns(column int, term, text string) string {
	var b strings.Builder
	head := "  " + term
	if len(head)+2 > column {
		b.WriteString(head + "\n")
		head = ""
	}
	for _, line := range terminal.Wrap(text, helpWidth-column) {
		fmt.Fprintf(&b, "%-*s%s\n", column, head, line)
		head = ""
	}
	return b.String()
}
