package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// scripts contains shell scripts that request completions from urfave/cli. They
// replace its own scripts: the one for bash requires bash-completion and evaluates
// the words before the cursor, the one for PowerShell works only as a file and
// offers words that do not match, and none completes the command of exec.
//
//go:embed completion
var scripts embed.FS

// configureCompletion changes the command that urfave/cli adds.
func configureCompletion(c *cli.Command) {
	c.Hidden, c.HideHelpCommand, c.ArgsUsage = false, true, "SHELL"
	c.Usage = "write a script that completes commands and flags in a shell"
	c.UsageText = "source <(entrapg completion bash)\n" +
		"source <(entrapg completion zsh)\n" +
		"entrapg completion fish > ~/.config/fish/completions/entrapg.fish\n" +
		"entrapg completion pwsh | Out-String | Invoke-Expression"
	c.Description = "Writes the script for bash, zsh, fish or PowerShell. Add the line for bash to ~/.bashrc, the line for zsh " +
		"to ~/.zshrc after compinit, and the line for PowerShell to the file that $PROFILE names."
	c.Action = func(_ context.Context, c *cli.Command) error {
		text := "missing shell"
		if c.Args().Present() {
			text = fmt.Sprintf("unknown shell %q", c.Args().First())
		}
		return command.UsageError("completion: " + text + "; must be bash, zsh, fish or pwsh")
	}
	for _, shell := range c.Commands {
		shell.Usage = "write the script for " + strings.Replace(shell.Name, "pwsh", "PowerShell", 1)
		shell.ArgValidator = command.NoArguments
		shell.Action = func(_ context.Context, c *cli.Command) error {
			script, err := scripts.ReadFile("completion/" + c.Name)
			if err == nil {
				_, err = c.Root().Writer.Write(script)
			}
			return err
		}
	}
}

// completeFlags completes flags, without the backquotes that mark placeholders in
// help.
func completeFlags(ctx context.Context, c *cli.Command) {
	root, out := c.Root(), c.Root().Writer
	var b strings.Builder
	root.Writer = &b
	cli.DefaultCompleteWithFlags(ctx, c)
	root.Writer = out
	io.WriteString(out, strings.ReplaceAll(b.String(), "`", ""))
}
