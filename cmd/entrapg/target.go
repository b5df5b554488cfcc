package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/entrapg/entrapg/internal/inspect"
)

// A target is where the user of the command says to log in.
type target struct{ dsn, envFile string }

func (t *target) define(flags *flag.FlagSet) {
	flags.StringVar(&t.dsn, "dsn", "", "where to log in, a postgres:// `URL` or key=value settings; instead of it, "+
		"an argument, DATABASE_URL or PG* variables")
	flags.StringVar(&t.envFile, "env-file", "", "read variables from this `FILE` of NAME=VALUE lines; they win over those that are set")
}

// aboutDSN is what every command that takes a target says about it.
const aboutDSN = "The DSN is the argument or that of --dsn, else DATABASE_URL, else what PG* variables say. It is " +
	"whatever pgx takes, and may choose the credential by entra_credential, entra_client_id and entra_tenant_id."

// find returns the DSN, which is empty where PG* variables say it all.
func (t *target) find(args []string) (string, error) {
	if t.envFile != "" {
		if err := loadEnv(t.envFile); err != nil {
			return "", err
		}
	}
	switch {
	case len(args) > 1:
		return "", wrongUse(fmt.Sprintf("unexpected argument %q", args[1]))
	case len(args) == 1 && t.dsn != "":
		return "", wrongUse("the DSN is given twice, as argument and by --dsn: keep one")
	case len(args) == 1 && !isDSN(args[0]):
		return "", wrongUse("the argument is no DSN: a DSN is a postgres:// URL or a list of key=value settings")
	case len(args) == 1:
		return args[0], nil
	case t.dsn != "":
		return t.dsn, nil
	case os.Getenv("DATABASE_URL") != "":
		return os.Getenv("DATABASE_URL"), nil
	case os.Getenv("PGHOST") != "" || os.Getenv("PGSERVICE") != "":
		return "", nil
	}
	return "", errNoDSN
}

const errNoDSN = wrongUse("no DSN: give it as argument or by --dsn, or set DATABASE_URL or PGHOST")

// open finds the DSN and reads it. Anywhere is the host where none is given, for
// what can do without one; empty means that one has to be.
func (t *target) open(args []string, anywhere string) (*inspect.Login, error) {
	dsn, err := t.find(args)
	if errors.Is(err, errNoDSN) && anywhere != "" {
		dsn, err = "host="+anywhere, nil
	}
	if err != nil {
		return nil, err
	}
	return inspect.Open(dsn)
}

func isDSN(arg string) bool { return strings.Contains(arg, "://") || strings.Contains(arg, "=") }

// loadEnv sets the variables of a .env file. Values may stand in single or double
// quotes; there is no substitution.
func loadEnv(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" || strings.ContainsAny(name, " \t'\"") {
			return fmt.Errorf("--env-file: %s, line %d is not NAME=VALUE", path, n)
		}
		if err := os.Setenv(name, unquote(value)); err != nil {
			return fmt.Errorf("--env-file: %s, line %d: %w", path, n, err)
		}
	}
	return lines.Err()
}

// unquote takes quotes off, or else a comment.
func unquote(value string) string {
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		if end := strings.IndexByte(value[1:], value[0]); end >= 0 {
			return value[1 : 1+end]
		}
	}
	if i := strings.Index(value, " #"); i >= 0 {
		value = strings.TrimSpace(value[:i])
	}
	return value
}
