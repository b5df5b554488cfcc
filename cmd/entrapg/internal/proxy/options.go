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
	if plan.fronts, err = o.allFronts(args); err != nil {
		return nil, err
	}
	if err := o.admit(plan, logger); err != nil {
		return nil, err
	}
	if o.maxConnections > 0 {
		plan.maxConnections, plan.limit = o.maxConnections, engine.NewLimit(o.maxConnections)
	}
	if o.status != "" {
		address, err := listener.Parse(o.status, 9090)
		if err == nil && address.Path != "" {
			err = errors.New("must be HOST:PORT or a port")
		}
		if err != nil {
			return nil, command.UsageError("--status: " + err.Error())
		}
		for _, f := range plan.fronts {
			if f.address.Conflicts(address) {
				return nil, command.UsageError(fmt.Sprintf("--status %s: conflicts with %s; choose another port",
					address, f.from))
			}
		}
		plan.status = &address
	}
	if err := o.addUpstreams(plan, logger); err != nil {
		return nil, err
	}
	return plan, nil
}

// allFronts returns the fronts of all settings, each with its DSN.
func (o *options) allFronts(args []string) ([]*front, error) {
	fronts, err := listenFronts(o.listen)
	if err != nil {
		return nil, err
	}
	if o.config != "" {
		more, err := readFronts(o.config)
		if err != nil {
			return nil, err
		}
		fronts = append(fronts, more...)
	}
	if len(args) > 0 && o.DSN == os.Getenv(dsnVariable) {
		o.DSN = "" // the argument overrides the variable
	}
	if len(fronts) == 0 {
		address := listener.Address{Host: "127.0.0.1", Port: defaultPort}
		fronts = append(fronts, &front{address: address, from: address.String()})
	}
	lacksDSN := func(f *front) bool { return !f.hasDSN }
	if source := o.givenDSN(args); source != "" && !slices.ContainsFunc(fronts, lacksDSN) {
		return nil, command.UsageError(source + " is not used, because each address has its own DSN; remove it, or add " +
			"--listen ADDRESS for it")
	}
	if slices.ContainsFunc(fronts, lacksDSN) {
		dsn, err := o.Find(args)
		if err != nil {
			return nil, err
		}
		for _, f := range fronts {
			if !f.hasDSN {
				f.dsn = dsn
			}
		}
	}
	for i, f := range fronts {
		for _, other := range fronts[:i] {
			if f.address.Conflicts(other.address) {
				return nil, command.UsageError(fmt.Sprintf("%s: the address is set twice; remove one", f.from))
			}
		}
	}
	return fronts, nil
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

// admit determines which clients can log in. It returns an error for settings that
// would accept clients by mistake.
func (o *options) admit(plan *plan, logger *slog.Logger) error {
	password, err := findPassword(o.passwordFile)
	if err != nil {
		return err
	}
	if o.passwordFile != "" {
		warnIfReadable(logger, "--password-file", o.passwordFile)
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
	for _, f := range plan.fronts {
		if f.address.Local() {
			continue
		}
		switch {
		case !o.allowRemote:
			return command.UsageError(fmt.Sprintf("%s: other machines could connect; listen on 127.0.0.1, or add --allow-remote",
				f.from))
		case password.value == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set %s or --password-file",
				f.from, passwordVariable))
		case o.tlsCert == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set --tls-cert and --tls-key", f.from))
		}
	}
	open := func(f *front) bool { return !f.address.Private() }
	switch asks := slices.ContainsFunc(plan.fronts, open) && !o.trust; {
	case asks && password.value == "":
		plan.password = generatePassword()
	case asks:
		plan.password, plan.passwordFile = password, o.passwordFile
	case password.value != "":
		logger.Warn("the password is for TCP; the permissions of Unix sockets decide who can connect",
			"setting", password.from)
	}
	if o.tlsCert != "" {
		if plan.certificate, err = certfile.Load(o.tlsCert, o.tlsKey, logger); err != nil {
			return fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
	}
	return nil
}

// addUpstreams creates an upstream for each DSN.
func (o *options) addUpstreams(plan *plan, logger *slog.Logger) error {
	byDSN, secret := map[string]*upstream{}, false
	for _, f := range plan.fronts {
		if f.upstream = byDSN[f.dsn]; f.upstream != nil {
			continue
		}
		login, err := inspect.Open(f.dsn)
		if err != nil {
			return inFront(plan.fronts, f, err)
		}
		login.Close()
		secret = secret || !login.Entra()
		u, err := engine.NewUpstream(f.dsn, entrapg.WithLogger(logger))
		if err != nil {
			return inFront(plan.fronts, f, err)
		}
		f.upstream = &upstream{Upstream: u, dsn: f.dsn}
		byDSN[f.dsn] = f.upstream
		plan.upstreams = append(plan.upstreams, f.upstream)
	}
	plan.nameUpstreams()
	if o.clientUser && !slices.ContainsFunc(plan.upstreams, (*upstream).userIsUnset) {
		return command.UsageError("--client-user is not used with a user in the DSN or in PGUSER; remove one")
	}
	if o.config != "" && secret {
		warnIfReadable(logger, "--config", o.config)
	}
	return nil
}

// inFront adds the front to an error if its setting contains the DSN, or there are several.
func inFront(fronts []*front, f *front, err error) error {
	if len(fronts) == 1 && !f.hasDSN {
		return err
	}
	return errors.New(f.from + ": " + strings.TrimPrefix(err.Error(), "entrapg: "))
}

// warnIfReadable logs that a file with a secret can be read by every user of the machine.
func warnIfReadable(logger *slog.Logger, setting, path string) {
	if info, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && info.Mode()&0o007 != 0 {
		logger.Warn("a file with a password is readable by every user; run chmod o-rwx", "setting", setting, "file", path)
	}
}
