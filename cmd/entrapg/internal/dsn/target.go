// Package dsn finds the DSN that a command works with: in its argument, its flags,
// variables, or a .env file.
package dsn

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/roots"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// A Target determines the login that a command works with.
type Target struct {
	DSN          string // of --dsn
	EnvFileError error  // of --env-file
}

// Flags returns --env-file and --dsn, which set the target.
func (t *Target) Flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "env-file", TakesFile: true,
			Usage: "set environment variables from this `FILE` in the format of .env files; they override existing ones",
			// Before other flags take their values from variables.
			Validator: func(path string) error {
				t.EnvFileError = errors.Join(t.EnvFileError, loadEnv(path))
				return nil
			},
		},
		&cli.StringFlag{
			Name: "dsn", Destination: &t.DSN, OnlyOnce: true, Validator: command.NotEmpty,
			Usage: "connection string: a postgres:// `URL` or key=value settings; the argument, DATABASE_URL or PG* variables " +
				"can set it instead",
		},
	}
}

// Help is the part of the help text that describes a target.
const Help = "The DSN comes from the argument or --dsn, else from DATABASE_URL, else from PG* variables. It accepts " +
	"everything that pgx accepts, entra_credential, entra_client_id and entra_tenant_id, which select the credential, and " +
	"entra_scope, the scope of the token."

// Find returns the DSN. It is empty if only PG* variables set the login.
func (t *Target) Find(args []string) (string, error) {
	if t.EnvFileError != nil {
		return "", t.EnvFileError
	}
	roots.TrustCertFile() // the .env file can set SSL_CERT_FILE
	switch {
	case len(args) > 1 && isSetting(args[0]) && isSetting(args[1]): // do not quote it: it may contain a password
		return "", command.UsageError(
			"unexpected second DSN; write all settings in one argument: 'host=NAME dbname=NAME'")
	case len(args) > 1 && Is(args[1]): // do not quote it: it may contain a password
		return "", command.UsageError("unexpected second DSN; remove one")
	case len(args) > 1:
		return "", command.UsageError(fmt.Sprintf("unexpected argument %q", args[1]))
	case len(args) == 1 && t.DSN != "":
		return "", command.UsageError("the DSN is set twice, by the argument and by --dsn; remove one")
	case len(args) == 1 && args[0] == "":
		return "", command.UsageError("the argument is empty; check the variable that it comes from")
	case len(args) == 1 && !Is(args[0]):
		return "", command.UsageError(
			"the argument is not a DSN; a DSN is a postgres:// URL or a list of key=value settings, " +
				"such as host=SERVER.postgres.database.azure.com")
	case len(args) == 1:
		passed = args[0]
		return passed, nil
	case t.DSN != "":
		passed = t.DSN
		return passed, nil
	}
	if dsn, ok := InEnvironment(); ok {
		return dsn, nil
	}
	if _, ok := os.LookupEnv("DATABASE_URL"); ok {
		return "", errEmptyVariable
	}
	return "", errNoDSN
}

// HidesHost reports whether the argument or --dsn sets no host and replaces DATABASE_URL.
func HidesHost() bool {
	return passed != "" && os.Getenv("DATABASE_URL") != "" && connstring.Parse(passed).Value("host") == ""
}

// InEnvironment reports whether the environment sets the login, by DATABASE_URL or by
// PG* variables. It returns the value of DATABASE_URL.
func InEnvironment() (dsn string, ok bool) {
	dsn = os.Getenv("DATABASE_URL")
	return dsn, cmp.Or(dsn, os.Getenv("PGHOST"), os.Getenv("PGHOSTADDR"), os.Getenv("PGSERVICE")) != ""
}

// passed is the DSN of this process's argument or --dsn.
var passed string

// Current returns the DSN of this process, like Find, for messages about its errors.
func Current() string {
	if passed != "" {
		return passed
	}
	return os.Getenv("DATABASE_URL")
}

// CommandLine returns the line that runs a subcommand with a DSN and with this process's
// .env files. It contains the word DSN instead of the DSN, which can contain a password,
// and no DSN if the environment sets the same one.
func CommandLine(subcommand, dsn string) string {
	line := "entrapg " + subcommand
	for _, path := range loaded {
		line += " --env-file " + quote.Shell(path)
	}
	if set, ok := InEnvironment(); !ok || dsn != set {
		line += " DSN"
	}
	return line
}

// Source returns the source of Find's DSN: "argument", "--dsn", "DATABASE_URL", or ""
// if PG* variables replace it.
func (t *Target) Source(args []string) string {
	switch {
	case len(args) == 1:
		return "argument"
	case t.DSN != "":
		return "--dsn"
	case os.Getenv("DATABASE_URL") != "":
		return "DATABASE_URL"
	default:
		return ""
	}
}

const errEmptyVariable = command.UsageError(
	"DATABASE_URL is empty, and PGHOST is not set; pass the DSN as the argument or with --dsn")

const errNoDSN = command.UsageError("missing DSN; pass it as the argument or with --dsn, or set DATABASE_URL or PGHOST")

// Open finds and parses the DSN. If no DSN is set, it uses the host anywhere; if that
// is empty, a missing DSN is an error.
func (t *Target) Open(args []string, anywhere string) (*inspect.Login, error) {
	dsn, err := t.Find(args)
	if (errors.Is(err, errNoDSN) || errors.Is(err, errEmptyVariable)) && anywhere != "" {
		dsn, err = "host="+anywhere, nil
	}
	if err != nil {
		return nil, err
	}
	return inspect.Open(dsn)
}

// Is reports whether an argument is a DSN, and not a word.
func Is(arg string) bool { return strings.Contains(arg, "://") || strings.Contains(arg, "=") }

// isSetting reports whether arg is a DSN of one setting, to which a list of settings
// without quotation marks is split.
func isSetting(arg string) bool {
	return strings.Contains(arg, "=") && !strings.Contains(arg, " ") && !strings.Contains(arg, "://")
}
