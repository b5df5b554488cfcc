// Command entrapg shows what package entrapg does, without Azure:
//
//	entrapg demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	done   = 0
	failed = 1
	misuse = 2
)

const usage = `Usage: entrapg COMMAND

  demo    keep a pool logged in through many token lifetimes, on this machine,
          beside one whose token was fixed at the start

'entrapg COMMAND -h' tells more.
`

// errUsage ends with exit code 2; what is wrong has been said.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	err := dispatch(ctx, args, stdout, stderr)
	switch {
	case err == nil:
		return done
	case errors.Is(err, errUsage):
		return misuse
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "entrapg: interrupted")
		return failed
	default:
		fmt.Fprintln(stderr, "entrapg:", err)
		return failed
	}
}

func dispatch(ctx context.Context, args []string, stdout, stderr *os.File) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	switch args[0] {
	case "demo":
		return demo(ctx, args[1:], newTerminal(stdout), stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	default:
		fmt.Fprintf(stderr, "entrapg: there is no command %q\n\n%s", args[0], usage)
		return errUsage
	}
}

// parse reads a command's flags. It returns false where the command is not to
// run, with the error for run.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) (bool, error) {
	flags.SetOutput(stderr)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return false, nil
	case err != nil:
		return false, errUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "entrapg %s: unexpected argument %q\n", flags.Name(), flags.Arg(0))
		return false, errUsage
	}
	return true, nil
}
