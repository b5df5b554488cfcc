// Command entrapg runs programs with a Microsoft Entra login to PostgreSQL,
// diagnoses logins that fail, and emulates Azure on this machine:
//
//	entrapg exec -- psql
//	entrapg doctor
//	entrapg help
//
//go:debug x509usefallbackroots=1
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/demo"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/doctor"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/emulator"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/execute"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	messages := terminal.Escaper{Writer: stderr}
	err := perform(ctx, args, command.Streams{Out: terminal.New(stdout), Err: messages})
	var wrong command.UsageError
	var code command.ExitCode
	switch {
	case err == nil:
		return command.Done
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &wrong):
		fmt.Fprintln(messages, "entrapg:", err)
		return command.Misuse
	case ctx.Err() != nil:
		fmt.Fprintln(messages, "entrapg: interrupted")
		return command.Failed
	case errors.Is(err, command.ErrReported):
		return command.Failed
	default:
		text := err.Error()
		if !strings.HasPrefix(text, "entrapg: ") {
			text = "entrapg: " + text
		}
		fmt.Fprintln(messages, text)
		if config := new(entrapg.ConfigError); errors.As(err, &config) && config.Setting == "host" && dsn.HidesHost() {
			fmt.Fprintln(messages, "the DSN that you pass replaces DATABASE_URL, and is not combined with it")
		}
		if noToken := new(entrapg.TokenError); errors.As(err, &noToken) {
			fmt.Fprintf(messages, "run '%s' for an explanation and the fix\n", dsn.CommandLine("doctor", dsn.Current()))
		}
		return command.Failed
	}
}

// perform runs the command that the arguments name. It returns an error if output
// cannot be written: a script must not take an empty token for success.
func perform(ctx context.Context, args []string, std command.Streams) error {
	root := rootCommand(std)
	parsed := false
	root.Before = func(ctx context.Context, _ *cli.Command) (context.Context, error) {
		parsed = true
		return ctx, nil
	}
	err := root.Run(ctx, append([]string{root.Name}, keepSeparator(args)...))
	if err != nil && !parsed {
		return command.UsageErrorOf(err)
	}
	if err == nil {
		err = std.Out.Err()
	}
	return err
}

// completionFlag is the last argument if a shell requests completions. A -- before
// it is the word at the cursor.
const completionFlag = "--generate-shell-completion"

// keepSeparator doubles the -- before the command of exec: urfave/cli parses flags
// up to the first one, and drops it.
func keepSeparator(args []string) []string {
	if i := slices.Index(args, "--"); i > 0 && args[0] == "exec" && !slices.Equal(args[i+1:], []string{completionFlag}) {
		return slices.Insert(slices.Clone(args), i, "--")
	}
	return args
}

func rootCommand(std command.Streams) *cli.Command {
	root := &cli.Command{
		Name:      "entrapg",
		Usage:     "log in to Azure Database for PostgreSQL with Microsoft Entra ID",
		UsageText: "entrapg exec -- psql\nentrapg doctor host=shop.postgres.database.azure.com\nentrapg demo",
		Version:   buildVersion(),
		Commands: []*cli.Command{
			execute.Command(std), proxy.Command(std), doctor.Command(std), whoamiCommand(std), tokenCommand(std),
			emulator.Command(std), demo.Command(std),
			helpCommand(), versionCommand(),
		},
		EnableShellCompletion:           true,
		ConfigureShellCompletionCommand: configureCompletion,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return command.UnknownCommand(c, c.Args().First())
			}
			cli.HelpPrinter(std.Err, cli.RootCommandHelpTemplate, c)
			return command.ExitCode(command.Misuse)
		},
		Writer: std.Out, ErrWriter: std.Err,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run chooses the exit code
	}
	root.Walk(func(c *cli.Command) error {
		if c.OnUsageError == nil {
			c.OnUsageError = command.OnUsageError
		}
		if c.ShellComplete == nil {
			c.ShellComplete = completeFlags
		}
		if c != root {
			c.HideHelpCommand = true // an argument may be the word help
			c.CommandNotFound = func(_ context.Context, c *cli.Command, _ string) { showHelp(c) }
		}
		return nil
	})
	return root
}

// versionCommand is the same as --version.
func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", Hidden: true,
		Action: func(_ context.Context, c *cli.Command) error {
			cli.ShowVersion(c.Root())
			return nil
		},
	}
}

// version is set by the linker in builds without version control.
var version string

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
