// Package proxy is the command proxy: it reads and checks the settings, and serves
// each address with package engine.
package proxy

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
)

// Command returns the command proxy, which writes to std.
func Command(std command.Streams) *cli.Command {
	o := &options{grace: 10 * time.Second, readyWithoutToken: 5 * time.Minute, logFormat: "text", logLevel: "info"}
	flags := o.flags()
	command.WithVariables(flags, variablePrefix)
	return &cli.Command{
		Name: "proxy", ArgsUsage: "[DSN]",
		Usage: "log in for programs that cannot hold a token",
		UsageText: "entrapg proxy postgres://shop.postgres.database.azure.com/shop\n" +
			"entrapg proxy --listen 5433=postgres://db.postgres.database.azure.com/orders\n" +
			"entrapg proxy --listen /run/entrapg --status :9090",
		Description: description,
		Flags:       flags,
		Action: func(ctx context.Context, c *cli.Command) error {
			o.version = c.Root().Version
			return o.run(ctx, c.Args().Slice(), std)
		},
	}
}
