// Package proxy is the command proxy: it reads and checks the settings, and serves
// each address with package engine.
package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
)

// Command returns the command proxy, which writes to std.
func Command(std command.Streams) *cli.Command {
	o := &options{grace: 10 * time.Second, readyWithoutToken: 5 * time.Minute, logFormat: "text", logLevel: "info"}
	flags := append(o.Flags(),
		command.EachFlag("listen",
			"`ADDRESS` for clients, or ADDRESS=DSN for a separate upstream; can be repeated (default 127.0.0.1:5432, unless "+
				"--config lists addresses)",
			func(s string) error {
				o.listen = append(o.listen, s) // an error here would show the DSN
				return nil
			}),
		&cli.StringFlag{
			Name: "config", TakesFile: true, Destination: &o.config,
			Usage: "read a line ADDRESS = DSN for each upstream from this `FILE`",
		},
		&cli.StringFlag{
			Name: "password-file", TakesFile: true, Destination: &o.passwordFile,
			Usage: "read the proxy's own password from this `FILE`; ENTRAPG_PROXY_PASSWORD can set it instead",
		},
		&cli.BoolFlag{
			Name: "trust", Destination: &o.trust,
			Usage: "require no password: every program on this machine, or in this pod, can log in",
		},
		&cli.BoolFlag{
			Name: "allow-remote", Destination: &o.allowRemote,
			Usage: "allow addresses that other machines can reach; requires a password and --tls-cert",
		},
		&cli.StringFlag{
			Name: "tls-cert", TakesFile: true, Destination: &o.tlsCert,
			Usage: "`FILE` with the certificate for clients over TCP, which must then use TLS; read again when it changes",
		},
		&cli.StringFlag{
			Name: "tls-key", TakesFile: true, Destination: &o.tlsKey,
			Usage: "`FILE` with the key of the certificate",
		},
		&cli.BoolFlag{
			Name: "client-user", Destination: &o.clientUser,
			Usage: "log in as the user that the client names, if the DSN sets none; otherwise the client's user is ignored",
		},
		&cli.IntFlag{
			Name: "max-connections", Destination: &o.maxConnections, HideDefault: true,
			Usage: "reject clients beyond this `NUMBER`, not counting those that have not authenticated; 0 is no limit",
			Validator: func(n int) error {
				if n < 0 {
					return fmt.Errorf("must be at least 0")
				}
				return nil
			},
		},
		&cli.DurationFlag{
			Name: "grace", Value: o.grace, Destination: &o.grace, Validator: command.AtLeast(0),
			Usage: "on SIGTERM, let sessions end for this `DURATION` before they are closed",
		},
		&cli.StringFlag{
			Name: "status", Destination: &o.status,
			Usage: "answer /startup, /liveness, /readiness and /metrics over HTTP on this `ADDRESS`",
		},
		&cli.DurationFlag{
			Name: "ready-without-token", Value: o.readyWithoutToken, Destination: &o.readyWithoutToken,
			Validator: command.AtLeast(0),
			Usage:     "let /readiness fail when token requests have failed for this `DURATION` and no token is valid; 0 is never",
		},
		&cli.BoolFlag{
			Name: "check", Destination: &o.check,
			Usage: "log in to each upstream once, report the result, and exit",
		},
		&cli.StringFlag{
			Name: "log-format", Value: o.logFormat, Destination: &o.logFormat, Validator: command.OneOf("text", "json"),
			Usage: "`FORMAT` of log records: text or json",
		},
		&cli.StringFlag{
			Name: "log-level", Value: o.logLevel, Destination: &o.logLevel,
			Validator: command.OneOf("debug", "info", "warn", "error"),
			Usage:     "lowest `LEVEL` of log records: debug, info, warn or error",
		},
	)
	command.WithVariables(flags, variablePrefix)
	return &cli.Command{
		Name: "proxy", ArgsUsage: "[DSN]",
		Usage: "log in for programs that cannot hold a token",
		UsageText: "entrapg proxy postgres://shop.postgres.database.azure.com/shop\n" +
			"entrapg proxy --listen 5433=postgres://db.postgres.database.azure.com/orders\n" +
			"entrapg proxy --listen /run/entrapg --status :9090",
		Description: "Listens on this machine, logs each client in to the server with a current token over verified TLS, and " +
			"relays the session. Clients use any PostgreSQL driver, without TLS and without a token. The server gets the " +
			"client's database and settings. The client's user is ignored, and the token's user is used.\n" +
			"Over TCP, clients log in with the proxy's own password. ENTRAPG_PROXY_PASSWORD or --password-file sets it. Otherwise a " +
			"password is generated and printed at the start. Unix sockets have mode 0600 and require no password.\n" +
			"An address is a port of 127.0.0.1, HOST:PORT, a directory for the Unix socket .s.PGSQL.5432, or the path of the " +
			"socket itself. libpq, and so psql, finds sockets whose name is .s.PGSQL.PORT. A name that ends in .sock is for clients " +
			"that take the path of a socket. @NAME is an abstract socket, which only Linux has and which requires the password. " +
			"Each flag can be set by its environment variable; " +
			"several addresses are separated by newlines.\n" +
			"SIGTERM and Ctrl-C stop listening, let sessions end for --grace, then close them; a second signal closes them " +
			"at once. SIGHUP does the same if the proxy runs on a terminal, and otherwise reads the TLS certificate and --password-file again.\n" +
			"docs/proxy.md describes Kubernetes, Compose, systemd and common clients.\n" + dsn.Help,
		Flags: flags,
		Action: func(ctx context.Context, c *cli.Command) error {
			o.version = c.Root().Version
			return o.run(ctx, c.Args().Slice(), std)
		},
	}
}
