package execute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// clients are PostgreSQL's own programs that log in to a server.
var clients = []string{
	"clusterdb", "createdb", "createuser", "dropdb", "dropuser", "pg_amcheck", "pg_basebackup", "pg_createsubscriber",
	"pg_dump", "pg_dumpall", "pg_receivewal", "pg_recvlogical", "pg_restore", "pg_rewind", "pgbench", "psql",
	"reindexdb", "vacuumdb", "vacuumlo",
}

// programName returns the name of a program without its directory and the .exe of
// Windows.
func programName(path string) string {
	return strings.TrimSuffix(strings.ToLower(filepath.Base(path)), ".exe")
}

// writesPassword returns a warning for a command that writes the password of its
// connection into a file, or "".
func writesPassword(argv []string) string {
	switch name := programName(argv[0]); {
	case name == "pg_createsubscriber",
		name == "pg_rewind" && writesRecovery(argv[1:], "D"),
		name == "pg_basebackup" && writesRecovery(argv[1:], "cdDFhilprsStTUXZ"):
		return name +
			" writes primary_conninfo with the token as password into postgresql.auto.conf or a backup, and the token expires; " +
			"remove the password there"
	}
	return ""
}

// writesRecovery reports whether -R or --write-recovery-conf is among options.
// Short options can be combined; those in valued take the rest, or else the next
// argument, as their value. Long ones can be abbreviated.
func writesRecovery(args []string, valued string) bool {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return false
		case strings.HasPrefix(arg, "--w") && strings.HasPrefix("--write-recovery-conf", arg):
			return true
		case strings.HasPrefix(arg, "--") || !strings.HasPrefix(arg, "-"):
			continue
		}
		for j, option := range arg[1:] {
			if option == 'R' {
				return true
			}
			if strings.ContainsRune(valued, option) {
				if j+2 == len(arg) {
					i++
				}
				break
			}
		}
	}
	return false
}

// bearerTimeout bounds requestsBearer unless connect_timeout is set, so that it delays a command
// only briefly if the server does not respond.
const bearerTimeout = 3 * time.Second

// requestsBearer reports whether the server requests the token by OAUTHBEARER. It sends
// neither a token nor a password.
func requestsBearer(ctx context.Context, login *inspect.Login, user string) bool {
	timeout := bearerTimeout
	if login.Settings.Value("connect_timeout") != "" {
		timeout = cmp.Or(login.Config.ConnectTimeout, bearerTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	asked := false
	config := login.Config.Copy()
	config.User = user
	config.RequireAuth = "oauth" // pgx ends the login if another method is requested
	config.OAuthTokenProvider = func(context.Context) (string, error) {
		asked = true
		return "", errors.New("canceled: the server has requested a token")
	}
	if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
		conn.Close(ctx)
	}
	return asked
}

// derivedForGuest returns a warning for a user that is derived from the token of a guest, or "".
func derivedForGuest(token *inspect.Token) string {
	c, err := claims.Parse(token.Value)
	if err != nil || token.Claim == "" || !c.Guest() || strings.Contains(token.User, "#EXT#") {
		return ""
	}
	return claims.GuestRole + "; set user or PGUSER to that name, such as " + c.GuestName()
}

// entraKeyInArgument returns a warning for a command whose argument is a DSN with a key of
// package entrapg, or "".
func entraKeyInArgument(argv []string) string {
	if !slices.Contains(clients, programName(argv[0])) {
		return ""
	}
	for _, arg := range argv[1:] {
		if !dsn.Is(arg) {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(connstring.InDSN(arg))) {
			if strings.HasPrefix(key, "entra_") {
				return fmt.Sprintf("libpq does not know the key %s in the command's argument; pass that DSN to entrapg instead: "+
					"entrapg exec DSN -- %s", key, programName(argv[0]))
			}
		}
	}
	return ""
}

// warnings returns warnings to show before a command runs.
func warnings(ctx context.Context, login *inspect.Login, token *inspect.Token, argv []string) []string {
	var all []string
	for _, warning := range []string{derivedForGuest(token), entraKeyInArgument(argv), writesPassword(argv)} {
		if warning != "" {
			all = append(all, warning)
		}
	}
	if name := programName(argv[0]); login.Entra() && slices.Contains(clients, name) && requestsBearer(ctx, login, token.User) {
		all = append(all, fmt.Sprintf("the server requests the token by OAUTHBEARER, which libpq cannot send for %s; "+
			"use a program that logs in with package entrapg", name))
	}
	return all
}
