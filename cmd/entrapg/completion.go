package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"
)

// describeCompletion completes the command that urfave/cli adds, which writes
// scripts for the shells.
func describeCompletion(c *cli.Command) {
	c.Hidden, c.ArgsUsage = false, "SHELL"
	c.Usage = "write a script that completes commands and flags in a shell"
	c.UsageText = "source <(entrapg completion bash)\n" +
		"source <(entrapg completion zsh)\n" +
		"entrapg completion fish > ~/.config/fish/completions/entrapg.fish\n" +
		"entrapg completion pwsh > entrapg.ps1"
	c.Description = "Writes the script for bash, zsh, fish or PowerShell. Add the line for bash to ~/.bashrc, and the line for " +
		"zsh to ~/.zshrc, after compinit. In PowerShell, run the file from your profile: . ./entrapg.ps1"
	for _, shell := range c.Commands {
		shell.Usage = "write the script for " + shell.Name
		if shell.Name == "pwsh" {
			shell.Usage = "write the script for PowerShell"
			shell.Aliases = []string{"powershell"}
		}
	}
	c.Action = func(_ context.Context, c *cli.Command) error {
		if c.Args().Present() {
			return wrongUse(fmt.Sprintf("completion: unknown shell %q; name bash, zsh, fish or pwsh", c.Args().First()))
		}
		return wrongUse("completion: missing shell; name bash, zsh, fish or pwsh")
	}
}
