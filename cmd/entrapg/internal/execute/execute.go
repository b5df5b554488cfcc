// Package execute is the command exec: it runs a program with the settings of a login,
// and a token, in libpq's environment variables.
package execute

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/roots"
	"github.com/entrapg/entrapg/internal/inspect"
)

// Command returns the command exec, which writes to std.
func Command(std command.Streams) *cli.Command {
	var t dsn.Target
	var byProxy bool
	return &cli.Command{
		Name: "exec", ArgsUsage: "[DSN] -- COMMAND [ARGUMENT ...]",
		Usage: "run psql, pg_dump or another program that reads PG* variables",
		UsageText: "entrapg exec -- psql\nentrapg exec host=shop.postgres.database.azure.com -- pg_dump -s shop\n" +
			"entrapg exec --proxy -- pg_dump -j 4 -Fd -f shop.dump shop",
		Description: "Runs the command with the settings of the DSN in its environment, as PGHOST, PGUSER, PGDATABASE, " +
			"PGSSLMODE and so on, and with a token as PGPASSWORD. If the DSN sets no user, the user is derived from the " +
			"token. The server is verified as in package entrapg.\n" +
			"The DSN accepts all keys of libpq. Those that have no environment variable, such as keepalives, are " +
			"ignored with a warning. With --proxy, the keys that make verification stricter, such as sslcrl, are errors. " +
			"As in libpq, PG* variables are defaults for settings that the DSN omits. PGPASSFILE and PGSERVICE are removed " +
			"from the command's environment, which contains the settings that they lead to, and so are ENTRAPG_PROXY_DSN, " +
			"ENTRAPG_PROXY_LISTEN and ENTRAPG_PROXY_PASSWORD, which can contain passwords.\n" +
			"The command replaces entrapg: it gets the terminal, signals and standard input, and its exit code is the " +
			"result. If it does not run, the exit code is 127 if it is not found, and 126 otherwise.\n" +
			"If the server rejects the login, the command shows only the server's message, such as \"password authentication " +
			"failed\", because entrapg has exited. 'entrapg doctor' explains the message. With --proxy, it includes a hint.\n" +
			"The command must not name the server. libpq rejects a DSN with entra_ keys in an argument, as in psql " +
			"$DATABASE_URL, and with --proxy, a host in an argument bypasses the proxy. Write entrapg exec \"$DATABASE_URL\" -- psql. " +
			"With --proxy, DATABASE_URL in the command's environment is the DSN of the proxy, and PGSSLMODE=disable applies to " +
			"all connections of the command.\n" +
			"A token is valid for about an hour. The server checks it only at login, so open sessions continue. A command " +
			"that opens connections later needs --proxy: it then connects through a proxy on a private socket, which logs " +
			"in with a current token for as long as the command runs. libpq cannot send a token by OAUTHBEARER: exec " +
			"warns if a server requests it from one of PostgreSQL's own programs.\n" +
			dsn.Help,
		Flags: append(t.Flags(), &cli.BoolFlag{
			Name: "proxy", Destination: &byProxy,
			Usage: "connect the command through a proxy that runs as long as the command, which can then outlive its token",
		}),
		OnUsageError: func(ctx context.Context, c *cli.Command, err error, sub bool) error {
			if _, _, missing := cut(c.Args().Slice()); slices.ContainsFunc(c.Args().Slice(), notDSN) {
				return missing // -- is missing before a command with flags
			}
			return command.OnUsageError(ctx, c, err, sub)
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			return run(ctx, &t, byProxy, c.Args().Slice(), std)
		},
	}
}

// run logs in and runs the command. It returns only if the command does not
// replace this process.
func run(ctx context.Context, t *dsn.Target, byProxy bool, args []string, std command.Streams) error {
	before, argv, err := cut(args)
	if err != nil {
		return err
	}
	dsn, err := t.Find(before)
	if err != nil {
		return err
	}
	open := openForLibpq
	if byProxy {
		open = openForProxy
	}
	login, ignored, err := open(dsn)
	if err != nil {
		return err
	}
	defer login.Close()
	path, err := findCommand(argv[0])
	if err != nil {
		return notStarted(std, argv[0], err)
	}
	if byProxy {
		for _, warning := range ignored {
			fmt.Fprintln(std.Err, "entrapg: warning:", warning)
		}
		return runByProxy(ctx, std, login, withoutOptionalKeys(dsn), path, argv)
	}
	unsetSecrets()
	token, err := login.Token(ctx, true)
	if err != nil {
		return err
	}
	env, remove, err := environmentOf(login, token)
	if err != nil {
		return err
	}
	defer remove()
	for _, warning := range append(ignored, warnings(ctx, login, token, argv)...) {
		fmt.Fprintln(std.Err, "entrapg: warning:", warning)
	}
	if ctx.Err() != nil { // interrupted before the command runs
		return ctx.Err()
	}
	return resultOf(std, argv[0], become(path, argv, env))
}

// secrets are variables that can contain a password, of this login or of the command proxy.
var secrets = []string{"PGPASSWORD", "ENTRAPG_PROXY_DSN", "ENTRAPG_PROXY_LISTEN", "ENTRAPG_PROXY_PASSWORD"}

// unsetSecrets unsets secrets once the login has been parsed, so that neither the command nor
// a developer tool such as az inherits them.
func unsetSecrets() {
	for _, name := range secrets {
		os.Unsetenv(name)
	}
}

// environmentOf returns this process's environment with libpq's variables for a
// login. remove deletes the temporary file that they may name.
func environmentOf(login *inspect.Login, token *inspect.Token) (env []string, remove func(), err error) {
	changes, err := libpqVariables(login, token)
	if err != nil {
		return nil, nil, err
	}
	remove = func() {}
	if changes["PGSSLROOTCERT"] == roots.System {
		if changes["PGSSLROOTCERT"], remove, err = roots.File(); err != nil {
			return nil, nil, fmt.Errorf("exec: the system's root certificates: %w", err)
		}
	}
	return environ(os.Environ(), changes, runtime.GOOS == "windows"), remove, nil
}

// cut separates the DSN, if any, from the command, at the first --.
func cut(args []string) (dsn, argv []string, err error) {
	i := slices.Index(args, "--")
	first := slices.IndexFunc(args, notDSN)
	switch {
	case len(args) == 0, i == len(args)-1, i < 0 && first < 0:
		return nil, nil, command.UsageError("exec: missing command; for example: entrapg exec -- psql")
	case i < 0:
		usage := "entrapg exec -- "
		if first > 0 {
			usage = "entrapg exec DSN -- "
		}
		return nil, nil, command.UsageError("exec: missing -- before the command; use " + usage + quote.Shell(args[first]))
	case first < i:
		return nil, nil, command.UsageError(fmt.Sprintf("exec: unexpected argument %q before --; "+
			"write only a DSN there, which is a postgres:// URL or a list of key=value settings, "+
			"such as host=SERVER.postgres.database.azure.com", args[first]))
	}
	return args[:i], args[i+1:], nil
}

func notDSN(arg string) bool { return !dsn.Is(arg) }
