package main

import (
	"context"
	"flag"
)

var tokenCommand = &command{
	name: "token", takes: "[DSN]",
	summary: "print a token, and nothing else",
	example: "entrapg token\nPGPASSWORD=$(entrapg token) psql -U shop-api $DATABASE_URL",
	about: "Prints the access token that a login would use. Whoever has it can log in as you until it expires: do " +
		"not print it where it stays.\n" +
		aboutDSN + " Without any, the token is for the public cloud.",
	setup: func(flags *flag.FlagSet) runner {
		var t target
		t.define(flags)
		return func(ctx context.Context, args []string, std streams) error {
			login, err := t.open(args, anywhere)
			if err != nil {
				return err
			}
			defer login.Close()
			if !login.Entra() {
				return wrongUse("entra_credential=none asks for no token")
			}
			token, err := login.Token(ctx, false)
			if err != nil {
				return err
			}
			std.out.printf("%s\n", token.Value)
			return nil
		}
	},
}

// anywhere is a host outside Azure's names, which belongs to whatever cloud the
// environment says.
const anywhere = "localhost"
