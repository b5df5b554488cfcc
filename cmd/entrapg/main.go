// Command entrapg brings Microsoft Entra logins to PostgreSQL's own programs,
// finds what keeps a login from working, and stands in for Azure on this machine:
//
//	entrapg exec -- psql
//	entrapg doctor
//	entrapg help
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/entrapg/entrapg"
)

// Exit codes. Exec ends with that of the program it runs.
const (
	done   = 0
	failed = 1
	misuse = 2
)

// A command is one thing that entrapg does. All that help, the reference and
// shell completion say of it comes from here.
type command struct {
	name    string
	takes   string // besides flags, as the usage line has it
	summary string // a line
	example string // lines to type
	about   string // paragraphs, a line each

	// setup defines the flags and returns what runs once they are parsed.
	setup func(*flag.FlagSet) runner
}

// A runner does a command's work with what is left of the arguments.
type runner func(ctx context.Context, args []string, std streams) error

// streams are where a command writes: what was asked for, and what is said about it.
type streams struct {
	out *terminal
	err io.Writer
}

// commands in the order of help, which is one of them.
var commands []*command

func init() {
	commands = []*command{
		execCommand, doctorCommand, whoamiCommand, tokenCommand, emulatorCommand, demoCommand, completionCommand, helpCommand,
	}
}

var (
	// errUsage ends with exit code 2; what is wrong has been said.
	errUsage = errors.New("usage")
	// errSaid ends with exit code 1; what is wrong has been said.
	errSaid = errors.New("failed")
)

// wrongUse is an error in how a command is used. It ends with exit code 2.
type wrongUse string

func (w wrongUse) Error() string { return string(w) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	messages := escaper{stderr}
	err := dispatch(ctx, args, stdout, messages)
	var wrong wrongUse
	var code exitCode
	switch {
	case err == nil:
		return done
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, errUsage):
		return misuse
	case errors.As(err, &wrong):
		fmt.Fprintln(messages, "entrapg:", err)
		return misuse
	case ctx.Err() != nil:
		fmt.Fprintln(messages, "entrapg: interrupted")
		return failed
	case errors.Is(err, errSaid):
		return failed
	default:
		text := err.Error()
		if !strings.HasPrefix(text, "entrapg: ") {
			text = "entrapg: " + text
		}
		fmt.Fprintln(messages, text)
		if noToken := new(entrapg.TokenError); errors.As(err, &noToken) {
			fmt.Fprintln(messages, "'entrapg doctor' says what it means and what fixes it")
		}
		return failed
	}
}

func dispatch(ctx context.Context, args []string, stdout *os.File, stderr io.Writer) error {
	out := newTerminal(stdout)
	if err := perform(ctx, args, out, stderr); err != nil {
		return err
	}
	if failure := out.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

func perform(ctx context.Context, args []string, out *terminal, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage())
		return errUsage
	}
	name := args[0]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version", "--version", "version":
		out.printf("entrapg %s\n", buildVersion())
		return nil
	}
	c := find(name)
	if c == nil {
		fmt.Fprintf(stderr, "entrapg: there is no command %q\n\n%s", name, usage())
		return errUsage
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	run := c.setup(flags)
	rest, err := parse(c, flags, args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		out.printf("%s", c.help())
		return nil
	case err != nil:
		fmt.Fprintf(stderr, "entrapg %s: %v\n'entrapg %s --help' shows how to use it\n", c.name, err, c.name)
		return errUsage
	}
	return run(ctx, rest, streams{out: out, err: stderr})
}

func find(name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}

// parse reads flags wherever they stand among the arguments, up to --. What
// stands after that, or in exec after the first argument too, is left alone.
func parse(c *command, flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		ended := len(args) > flags.NArg() && args[len(args)-flags.NArg()-1] == "--"
		args = flags.Args()
		switch {
		case c == execCommand && (ended || len(args) == 0 || !isDSN(args[0])):
			if ended {
				rest = append(rest, "--")
			}
			return append(rest, args...), nil
		case ended || len(args) == 0:
			return append(rest, args...), nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}
