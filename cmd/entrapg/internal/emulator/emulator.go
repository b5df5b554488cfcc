// Package emulator is the command emulator: a PostgreSQL that checks tokens and an Entra
// tenant on this machine, for programs in any language. It configures package
// entrapgtest.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/roots"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/entrapgtest"
)

// Command returns the command emulator, which writes to std.
func Command(std command.Streams) *cli.Command {
	o := &options{}
	c := &cli.Command{
		Name:  "emulator",
		Usage: "emulate Azure on this machine, for programs in any language",
		UsageText: "entrapg emulator\nentrapg emulator --identity shop-api --env-file emulator.env\n" +
			"entrapg emulator --state ~/.entrapg --service jobs --as jobs",
		Description:  description,
		Flags:        o.flags(),
		ArgValidator: command.NoArguments,
		Action: func(ctx context.Context, _ *cli.Command) error {
			if o.principals != "" {
				read, err := readPrincipals(o.principals)
				if err != nil {
					return err
				}
				o.specs = append(o.specs, read...)
			}
			for _, address := range []struct {
				flag string
				text *string
			}{{"addr", &o.config.Addr}, {"tenant-addr", &o.config.TenantAddr}, {"identity-addr", &o.config.IdentityAddr}} {
				var err error
				if *address.text, err = readAddress(*address.text); err != nil {
					return command.UsageError("--" + address.flag + ": " + err.Error())
				}
			}
			return o.run(ctx, std)
		},
	}
	command.WithVariables(c.Flags, "ENTRAPG_EMULATOR_")
	return c
}

// readAddress reads an address: HOST:PORT, a port of 127.0.0.1, or nothing for any port.
func readAddress(text string) (string, error) {
	host, port := "127.0.0.1", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return "", fmt.Errorf("invalid address %q; want HOST:PORT, [IPV6]:PORT or a port", text)
		}
	} else if text == "" {
		return "", nil
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("invalid port in %q; want a number from 1 to 65535", text)
	}
	return net.JoinHostPort(host, port), nil
}

// options are what flags and environment variables set.
type options struct {
	config        entrapgtest.Config
	envFiles      []string
	worldReadable bool
	noRoles       bool
	principals    string // a file
	specs         []spec
	as            []string
}

// flags returns the flags that set o.
func (o *options) flags() []cli.Flag {
	principal := func(kind, usage string) cli.Flag {
		return command.EachFlag(kind, usage+"; can be repeated", func(s string) error {
			o.specs = append(o.specs, fromFlag(kind, s))
			return nil
		})
	}
	return []cli.Flag{
		&cli.StringFlag{
			Name: "addr", Value: "127.0.0.1:15432", Destination: &o.config.Addr,
			Usage: "`ADDRESS` of the server",
		},
		&cli.StringFlag{
			Name: "tenant-addr", Value: "127.0.0.1:15433", Destination: &o.config.TenantAddr,
			Usage: "`ADDRESS` of the tenant, over HTTPS",
		},
		&cli.StringFlag{
			Name: "identity-addr", Value: "127.0.0.1:15434", Destination: &o.config.IdentityAddr,
			Usage: "`ADDRESS` of the managed identity endpoint, over HTTP",
		},
		command.EachFlag("hostname",
			"another `NAME` that the certificate is valid for; can be repeated, and settings contain "+
				"the first instead of 0.0.0.0", func(s string) error {
				o.config.Hostnames = append(o.config.Hostnames, s)
				return nil
			}),
		&cli.StringFlag{
			Name: "upstream", Destination: &o.config.Upstream,
			Usage: "`DSN` of a superuser, with password, on an existing PostgreSQL",
		},
		&cli.StringFlag{
			Name: "state", TakesFile: true, Destination: &o.config.StateDir,
			Usage: "keep secrets and data in this `DIRECTORY`, and use those of earlier starts",
		},
		&cli.DurationFlag{
			Name: "token-life", Value: time.Hour, Destination: &o.config.TokenLife, Validator: command.AtLeast(time.Second),
			Usage: "how long tokens are valid, a `DURATION` of at least 1s",
		},
		command.EachFlag("env-file",
			"also write the settings into a new `FILE` in the format of .env files, which is removed at the end; "+
				"can be repeated, and the second contains the settings of the second --as", func(s string) error {
				o.envFiles = append(o.envFiles, s)
				return nil
			}),
		&cli.BoolFlag{
			Name: "world-readable", Destination: &o.worldReadable,
			Usage: "let every user read --env-file, as programs in other containers need; settings contain secrets",
		},
		&cli.StringFlag{
			Name: "ca-file", TakesFile: true, Destination: &o.config.CAFile,
			Usage: "write the certificate that programs trust into this `FILE`, where other users can read it; it is removed at the end",
		},
		command.EachFlag("as",
			"print the settings of the principal with this `NAME`; can be repeated, --env-file contains the first",
			func(s string) error {
				o.as = append(o.as, s)
				return nil
			}),
		&cli.StringFlag{
			Name: "principals", TakesFile: true, Destination: &o.principals,
			Usage: "read principals from this `FILE`",
		},
		&cli.BoolFlag{
			Name: "no-roles", Destination: &o.noRoles,
			Usage: "create no roles except those of administrators",
		},
		&cli.BoolFlag{
			Name: "group-sync", Destination: &o.config.GroupSync,
			Usage: "give members of groups their own roles: every 30 minutes, and when an administrator calls " +
				"pgaadauth_sync_roles_for_group_members",
		},
		principal("admin", "`NAME` of an Entra administrator"),
		principal("user", "user principal `NAME` of a user"),
		principal(
			"guest",
			"`EMAIL` address of a guest, after an identity provider and # if it is not of another tenant: live.com#bob@outlook.com",
		),
		principal("group", "`NAME` of a group, and =MEMBER,MEMBER for its members"),
		principal("identity", "`NAME` of a user-assigned identity"),
		principal("system", "`RESOURCE` of a system-assigned identity"),
		principal("service", "display `NAME` of a service principal"),
	}
}

// flagOf names the flags that set fields of the configuration.
var flagOf = map[string]string{
	"Addr": "--addr", "TenantAddr": "--tenant-addr", "IdentityAddr": "--identity-addr", "Hostnames": "--hostname",
	"Upstream": "--upstream", "StateDir": "--state", "CAFile": "--ca-file",
}

func (o *options) run(ctx context.Context, std command.Streams) (err error) {
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE) // so that a write to a closed pipe is an error, not the end
	defer signal.Stop(pipes)

	all, err := completeSpecs(o.specs)
	if err != nil {
		return err
	}
	logins, err := selectLogins(createPrincipals(new(entrapgtest.Tenant), all), o.as)
	if err != nil {
		return err
	}
	if len(o.envFiles) > len(logins) {
		return command.UsageError(fmt.Sprintf("--env-file: %d files, but the number of principals is %d; add --as NAME for each file",
			len(o.envFiles), len(logins)))
	}
	mode := os.FileMode(0o600)
	if o.worldReadable {
		mode = 0o644
	}
	var files []*settingsFile
	for _, path := range o.envFiles {
		file, failure := reserveSettingsFile(path, mode)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, file.remove()) }()
		files = append(files, file)
	}
	log := newLoginLog(std)
	defer log.stop()
	o.config.OnLogin = log.write
	server, err := entrapgtest.Start(ctx, o.config)
	if err != nil {
		return o.explain(ctx, err)
	}
	principals := createPrincipals(server.Tenant, all)
	err = o.createRoles(ctx, server, principals)
	if err == nil {
		err = o.printBanner(ctx, std.Out, server, principals, files)
	}
	if err != nil {
		return errors.Join(o.explain(ctx, err), server.Close())
	}
	log.start()
	ended := server.Wait(ctx)
	closed := server.Close()
	if ctx.Err() == nil {
		return o.explain(ctx, ended)
	}
	log.writeStopped()
	if closed != nil {
		fmt.Fprintln(std.Err, "entrapg:", closed)
		return command.ExitCode(command.Failed)
	}
	return nil
}

// winsockAddressInUse is what Windows reports instead of EADDRINUSE.
const winsockAddressInUse = syscall.Errno(10048)

// explain names the flag that an error is about.
func (o *options) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	wrong := new(entrapgtest.ConfigError)
	switch {
	case errors.As(err, &wrong) && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, winsockAddressInUse)):
		return fmt.Errorf("%s: %w; stop the program that uses it, or name another address", flagOf[wrong.Field], wrong.Err)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: %w", flagOf[wrong.Field], wrong.Err)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "entrapgtest: "))
}

func (o *options) createRoles(ctx context.Context, server *entrapgtest.Server, principals []principal) error {
	for _, p := range principals {
		var err error
		switch {
		case p.admin():
			err = server.CreateAdmin(ctx, "", p.Principal)
		case !o.noRoles:
			err = server.CreateRole(ctx, "", p.Principal)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.origin, err)
		}
	}
	return nil
}

// printBanner writes the addresses, the principals and the settings.
func (o *options) printBanner(
	ctx context.Context, out *terminal.Output, server *entrapgtest.Server, principals []principal, files []*settingsFile,
) error {
	logins, err := selectLogins(principals, o.as)
	if err != nil {
		return err
	}
	out.Printf("%s PostgreSQL on %s, tenant on %s,\n  tokens are valid for %s\n\n",
		out.Good("✓"), out.Bold(server.Addr()), server.Tenant.URL(), terminal.Duration(o.config.TokenLife))
	for _, p := range principals {
		what := string(p.Kind)
		switch {
		case p.admin():
			what += ", Entra administrator"
		case o.noRoles:
			what += ", no role yet"
		}
		out.Printf("  %-24s  %s\n", p.Name, what)
		for _, v := range p.secrets() {
			out.Printf("  %-24s  %s\n", "", out.Dim(v.name+"="+v.value))
		}
	}
	needsRoots, shell := false, syntaxFor(runtime.GOOS, os.Getenv)
	for i, l := range logins {
		settings, err := l.settings(ctx, server, principals)
		if err != nil {
			return err
		}
		if i < len(files) {
			if err := files[i].write(settings); err != nil {
				return err
			}
		}
		title := "Paste this into a shell:"
		if len(o.as) > 0 {
			title = "Paste this into a shell to log in as " + l.role + ":"
		}
		out.Printf("\n%s\n\n%s\n", out.Bold(title), shell.lines(settings))
		if i < len(files) {
			out.Printf("Or use the file with these settings:\n\n  entrapg exec --env-file %s -- psql\n",
				shell.quote(files[i].path))
		}
		needsRoots = needsRoots || !l.managed() && roots.IgnoresCertFile(runtime.GOOS)
	}
	if len(files) < len(logins) {
		out.Printf("Then, for example:\n\n  entrapg exec -- psql\n")
	}
	out.Printf("\n")
	if needsRoots {
		out.Hang("", "Go ignores SSL_CERT_FILE on this system. The entrapg command reads it. Your programs in Go need "+
			"GODEBUG=x509usefallbackroots=1 and a call of x509.SetFallbackRoots with the certificates of that file.")
	}
	out.Hang("", "To log in as another principal, start with --as NAME. Ctrl-C stops the emulator.")
	out.Printf("\n%s\n", out.Bold("Logins:"))
	return out.Err()
}
