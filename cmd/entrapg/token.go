package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
)

func tokenCommand(std command.Streams) *cli.Command {
	var t dsn.Target
	return &cli.Command{
		Name: "token", ArgsUsage: "[DSN]",
		Usage: "print an access token",
		UsageText: "entrapg exec -- psql\nentrapg token\nexport PGSSLMODE=verify-full PGSSLROOTCERT=system\n" +
			"PGPASSWORD=$(entrapg token) psql 'host=HOST user=shop-api'",
		Description: "Prints the access token that a login would use. Anyone who has the token can log in as you until it " +
			"expires: do not write it to logs or files.\n" +
			"For psql and other programs that read PG* variables, use entrapg exec, which makes them verify the server. " +
			"Any other program that gets the token must verify the server itself. libpq does not by default: set " +
			"sslmode=verify-full, and sslrootcert to a file with root certificates, or to system with libpq 16 or newer. " +
			"libpq rejects a DSN with entra_ keys.\n" +
			dsn.Help + " Without a DSN, the token is for the Azure public cloud.",
		Flags: t.Flags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			login, err := t.Open(c.Args().Slice(), anywhere)
			if err != nil {
				return err
			}
			defer login.Close()
			if !login.Entra() {
				return command.UsageError("token: entra_credential=none uses no token")
			}
			token, err := login.Token(ctx, false)
			if err != nil {
				return err
			}
			std.Out.Printf("%s\n", token.Value)
			return nil
		},
	}
}

// anywhere is a host outside Azure's clouds, so that the environment determines the
// cloud.
const anywhere = "localhost"
