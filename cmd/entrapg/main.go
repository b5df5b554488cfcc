// Command entrapg runs programs with a Microsoft Entra login to PostgreSQL,
// diagnoses logins that fail, and emulates Azure on this machine:
//
//	entrapg exec -- psql
//	entrapg doctor
//	entrapg help
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
)

// Exit codes. Exec ends with the exit code of the program that it runs.
const (
	done   = 0
	failed = 1
	misuse = 2
)

// streams are where a command writes its results, and everything else.
type streams struct {
	out *terminal
	err io.Writer
}

// errReported is a failure that has already been reported. The exit code is 1.
var errReported = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	messages := escaper{stderr}
	err := perform(ctx, args, streams{newTerminal(stdout), messages})
	var wrong wrongUse
	var code exitCode
	switch {
	case err == nil:
		return done
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &wrong):
		fmt.Fprintln(messages, "entrapg:", err)
		return misuse
	case ctx.Err() != nil:
		fmt.Fprintln(messages, "entrapg: interrupted")
		return failed
	case errors.Is(err, errReported):
		return failed
	default:
		text := err.Error()
		if !strings.HasPrefix(text, "entrapg: ") {
			text = "entrapg: " + text
		}
		fmt.Fprintln(messages, text)
		if noToken := new(entrapg.TokenError); errors.As(err, &noToken) {
			doctor := "entrapg doctor"
			if os.Getenv("DATABASE_URL") == "" && os.Getenv("PGHOST") == "" && os.Getenv("PGSERVICE") == "" {
				doctor += " DSN" // which the doctor requires
			}
			fmt.Fprintf(messages, "run '%s' for an explanation and the fix\n", doctor)
		}
		return failed
	}
}

// perform runs the command that the arguments name. It returns an error if output
// cannot be written: a script must not take an empty token for success.
func perform(ctx context.Context, args []string, std streams) error {
	root := rootCommand(std)
	parsed := false
	root.Before = func(ctx context.Context, _ *cli.Command) (context.Context, error) {
		parsed = true
		return ctx, nil
	}
	err := root.Run(ctx, append([]string{root.Name}, keepSeparator(args)...))
	if err != nil && !parsed {
		return misuseOf(err)
	}
	if failure := std.out.failure.Load(); err == nil && failure != nil {
		return *failure
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

func rootCommand(std streams) *cli.Command {
	root := &cli.Command{
		Name:      "entrapg",
		Usage:     "log in to Azure Database for PostgreSQL with Microsoft Entra ID",
		UsageText: "entrapg exec -- psql\nentrapg doctor host=shop.postgres.database.azure.com\nentrapg demo",
		Version:   buildVersion(),
		Commands: []*cli.Command{
			execCommand(std), proxyCommand(std), doctorCommand(std), whoamiCommand(std), tokenCommand(std), emulatorCommand(std), demoCommand(std),
			helpCommand(), versionCommand(),
		},
		EnableShellCompletion:           true,
		ConfigureShellCompletionCommand: configureCompletion,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return unknownCommand(c, c.Args().First())
			}
			cli.HelpPrinter(std.err, cli.RootCommandHelpTemplate, c)
			return exitCode(misuse)
		},
		Writer: std.out, ErrWriter: std.err,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run chooses the exit code
	}
	root.Walk(func(c *cli.Command) error {
		if c.OnUsageError == nil {
			c.OnUsageError = usageError
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
