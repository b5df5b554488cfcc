package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/certfile"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/internal/inspect"
)

// options are what flags and environment variables set.
type options struct {
	dsn.Target
	listen                         []string
	config                         string
	passwordFile                   string
	trust, allowRemote, clientUser bool
	tlsCert, tlsKey                string
	maxConnections                 int
	grace                          time.Duration
	status                         string
	readyWithoutToken              time.Duration
	check                          bool
	logFormat, logLevel            string
	version                        string // of this program
}

// flags returns the flags that set o, which contains the defaults.
func (o *options) flags() []cli.Flag {
	return append(o.Flags(),
		command.EachFlag("listen",
			"`ADDRESS` for clients, or ADDRESS=DSN for a separate upstream; can be repeated (default: 127.0.0.1:5432, unless "+
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
			Usage:     "reject clients beyond this `NUMBER`, not counting those that have not authenticated; 0 is no limit",
			Validator: command.AtLeast(0),
		},
		&cli.DurationFlag{
			Name: "grace", Value: o.grace, Destination: &o.grace, Validator: command.AtLeast[time.Duration](0),
			Usage: "on SIGTERM, let sessions end for this `DURATION` before they are closed",
		},
		&cli.StringFlag{
			Name: "status", Destination: &o.status,
			Usage: "answer /startup, /liveness, /readiness and /metrics over HTTP on this `ADDRESS`",
		},
		&cli.DurationFlag{
			Name: "ready-without-token", Value: o.readyWithoutToken, Destination: &o.readyWithoutToken,
			Validator: command.AtLeast[time.Duration](0),
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
}

// run checks all settings before it listens.
func (o *options) run(ctx context.Context, args []string, std command.Streams) error {
	log := newLog(std.Err, o.logFormat, o.logLevel)
	defer log.close()
	plan, err := o.plan(args, log.Logger)
	if err != nil {
		return err
	}
	defer plan.close()
	if o.check {
		return plan.check(ctx, std.Out)
	}
	return serve(ctx, plan, std.Out, log.Logger)
}

// variablePrefix begins the names of the environment variables of flags.
const variablePrefix = "ENTRAPG_PROXY_"

const dsnVariable = variablePrefix + "DSN"

// sourceOf returns what sets the value of a flag: the flag or its environment variable.
func sourceOf(flag, value string) string {
	variable := variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	if set, ok := os.LookupEnv(variable); ok && value == strings.Trim(set, "\n") {
		return variable
	}
	return "--" + flag
}

// plan checks all settings. The plan must be closed.
func (o *options) plan(args []string, logger *slog.Logger) (_ *plan, err error) {
	plan := &plan{clientUser: o.clientUser, grace: o.grace, readyWithoutToken: o.readyWithoutToken, version: o.version}
	defer func() {
		if err != nil {
			plan.close()
		}
	}()
	if o.EnvFileError != nil {
		return nil, o.EnvFileError
	}
	if plan.bindings, err = o.allBindings(args); err != nil {
		return nil, err
	}
	if err := o.checkAccess(plan, logger); err != nil {
		return nil, err
	}
	if o.maxConnections > 0 {
		plan.maxConnections, plan.limit = o.maxConnections, engine.NewLimit(o.maxConnections)
	}
	if o.status != "" {
		plan.statusFrom = sourceOf("status", o.status)
		address, err := listener.Parse(o.status, 9090)
		if err == nil && address.Path != "" {
			err = errors.New("must be HOST:PORT or a port")
		}
		if err != nil {
			return nil, command.UsageError(plan.statusFrom + ": " + err.Error())
		}
		for _, b := range plan.bindings {
			if b.address.Conflicts(address) {
				return nil, command.UsageError(fmt.Sprintf("%s %s: conflicts with %s; choose another port",
					plan.statusFrom, address, b.from))
			}
		}
		plan.status = &address
	}
	if err := o.addUpstreams(plan, logger); err != nil {
		return nil, err
	}
	return plan, nil
}

// allBindings returns the bindings of all settings, each with its DSN.
func (o *options) allBindings(args []string) ([]*binding, error) {
	bindings, err := listenBindings(o.listen)
	if err != nil {
		return nil, err
	}
	if o.config != "" {
		more, err := readBindings(o.config)
		if err != nil {
			return nil, err
		}
		bindings = append(bindings, more...)
	}
	if len(args) > 0 && o.DSN == os.Getenv(dsnVariable) {
		o.DSN = "" // the argument overrides the variable
	}
	if len(bindings) == 0 {
		address := listener.Address{Host: "127.0.0.1", Port: defaultPort}
		bindings = append(bindings, &binding{address: address, from: address.String()})
	}
	lacksDSN := func(b *binding) bool { return !b.hasDSN }
	if source := o.givenDSN(args); source != "" && !slices.ContainsFunc(bindings, lacksDSN) {
		return nil, command.UsageError(source + " is not used, because each address has its own DSN; remove it, or add " +
			"--listen ADDRESS for it")
	}
	if slices.ContainsFunc(bindings, lacksDSN) {
		dsn, err := o.Find(args)
		if err != nil {
			return nil, err
		}
		for _, b := range bindings {
			if !b.hasDSN {
				b.dsn = dsn
			}
		}
	}
	for i, b := range bindings {
		for _, other := range bindings[:i] {
			if b.address.Conflicts(other.address) {
				return nil, command.UsageError(fmt.Sprintf("%s: the address is set twice; remove one", b.from))
			}
		}
	}
	return bindings, nil
}

// givenDSN returns the setting of this command that sets a DSN, or "".
func (o *options) givenDSN(args []string) string {
	switch {
	case len(args) > 0:
		return "the DSN of the argument"
	case o.DSN == "":
		return ""
	case o.DSN == os.Getenv(dsnVariable):
		return "the DSN of " + dsnVariable
	default:
		return "the DSN of --dsn"
	}
}

// checkAccess determines which clients can log in. It returns an error for settings that
// would accept clients by mistake.
func (o *options) checkAccess(plan *plan, logger *slog.Logger) error {
	password, err := findPassword(o.passwordFile)
	if err != nil {
		return err
	}
	if o.passwordFile != "" {
		warnIfReadable(logger, sourceOf("password-file", o.passwordFile), o.passwordFile)
	}
	switch {
	case o.trust && password.value != "":
		return command.UsageError("--trust requires no password, but " + password.from + " sets one; remove one")
	case o.trust && o.allowRemote:
		return command.UsageError(
			"--trust is not used with --allow-remote; set " + passwordVariable + " or --password-file instead")
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return command.UsageError("--tls-cert and --tls-key must be set together")
	}
	for _, b := range plan.bindings {
		if b.address.Local() {
			continue
		}
		switch {
		case !o.allowRemote:
			return command.UsageError(fmt.Sprintf("%s: other machines could connect; listen on 127.0.0.1, or add --allow-remote",
				b.from))
		case password.value == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set %s or --password-file",
				b.from, passwordVariable))
		case o.tlsCert == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set --tls-cert and --tls-key", b.from))
		}
	}
	open := func(b *binding) bool { return !b.address.Private() }
	switch needsPassword := slices.ContainsFunc(plan.bindings, open) && !o.trust; {
	case needsPassword && password.value == "":
		plan.password = generatePassword()
	case needsPassword:
		plan.password, plan.passwordFile = password, o.passwordFile
	case password.value != "":
		logger.Warn("the password is for TCP; the permissions of Unix sockets decide who can connect",
			"setting", password.from)
	}
	if o.tlsCert != "" {
		if plan.certificate, err = certfile.Load(o.tlsCert, o.tlsKey, logger); err != nil {
			return fmt.Errorf("%s, %s: %w", sourceOf("tls-cert", o.tlsCert), sourceOf("tls-key", o.tlsKey), err)
		}
	}
	return nil
}

// addUpstreams creates an upstream for each DSN.
func (o *options) addUpstreams(plan *plan, logger *slog.Logger) error {
	byDSN, secret := map[string]*upstream{}, false
	for _, b := range plan.bindings {
		if b.upstream = byDSN[b.dsn]; b.upstream != nil {
			continue
		}
		login, err := inspect.Open(b.dsn)
		if err != nil {
			return withBinding(plan.bindings, b, err)
		}
		login.Close()
		secret = secret || !login.Entra()
		u, err := engine.NewUpstream(b.dsn, entrapg.WithLogger(logger))
		if err != nil {
			return withBinding(plan.bindings, b, err)
		}
		b.upstream = &upstream{Upstream: u, dsn: b.dsn}
		byDSN[b.dsn] = b.upstream
		plan.upstreams = append(plan.upstreams, b.upstream)
	}
	plan.nameUpstreams()
	if o.clientUser && !slices.ContainsFunc(plan.upstreams, (*upstream).userIsUnset) {
		return command.UsageError("--client-user is not used with a user in the DSN or in PGUSER; remove one")
	}
	if o.config != "" && secret {
		warnIfReadable(logger, sourceOf("config", o.config), o.config)
	}
	return nil
}

// withBinding adds the binding to an error if its setting contains the DSN, or there are several.
func withBinding(bindings []*binding, b *binding, err error) error {
	if len(bindings) == 1 && !b.hasDSN {
		return err
	}
	return errors.New(b.from + ": " + strings.TrimPrefix(err.Error(), "entrapg: "))
}

// warnIfReadable logs that a file with a secret can be read by every user of the machine.
func warnIfReadable(logger *slog.Logger, setting, path string) {
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode()&0o007 != 0 {
		logger.Warn("a file with a password is readable by every user; run chmod o-rwx", "setting", setting, "file", path)
	}
}
