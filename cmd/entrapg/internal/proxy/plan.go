package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/certfile"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/inspect"
)

// A plan is the validated configuration of the proxy.
type plan struct {
	fronts      []*front
	upstreams   []*upstream
	password    password // the zero value if no front requires one
	certificate *certfile.Pair
	status      *listener.Address

	clientUser        bool
	maxConnections    int
	limit             *engine.Limit // of maxConnections, if that is not 0
	grace             time.Duration
	readyWithoutToken time.Duration
	version           string // of this program
}

// plan checks all settings. The plan must be closed.
func (p *options) plan(args []string, logger *slog.Logger) (_ *plan, err error) {
	plan := &plan{clientUser: p.clientUser, grace: p.grace, readyWithoutToken: p.readyWithoutToken, version: p.version}
	defer func() {
		if err != nil {
			plan.close()
		}
	}()
	if p.EnvFileError != nil {
		return nil, p.EnvFileError
	}
	if plan.fronts, err = p.allFronts(args); err != nil {
		return nil, err
	}
	if err := p.admit(plan, logger); err != nil {
		return nil, err
	}
	if p.maxConnections > 0 {
		plan.maxConnections, plan.limit = p.maxConnections, engine.NewLimit(p.maxConnections)
	}
	if p.status != "" {
		address, err := listener.Parse(p.status, 9090)
		if err == nil && address.Path != "" {
			err = errors.New("must be HOST:PORT or a port")
		}
		if err != nil {
			return nil, command.UsageError("--status: " + err.Error())
		}
		plan.status = &address
	}
	if err := plan.addUpstreams(p, logger); err != nil {
		return nil, err
	}
	return plan, nil
}

// allFronts returns the fronts of all settings, each with its DSN.
func (p *options) allFronts(args []string) ([]*front, error) {
	fronts, err := listenFronts(p.listen)
	if err != nil {
		return nil, err
	}
	if p.config != "" {
		more, err := readFronts(p.config)
		if err != nil {
			return nil, err
		}
		fronts = append(fronts, more...)
	}
	if len(args) > 0 && p.DSN == os.Getenv(variables+"DSN") {
		p.DSN = "" // the argument overrides the variable
	}
	lacksDSN := func(f *front) bool { return !f.hasDSN }
	if given := len(args) > 0 || p.DSN != ""; len(fronts) == 0 || given && !slices.ContainsFunc(fronts, lacksDSN) {
		address := listener.Address{Host: "127.0.0.1", Port: defaultPort}
		fronts = append(fronts, &front{address: address, from: address.String()})
	}
	if slices.ContainsFunc(fronts, lacksDSN) {
		dsn, err := p.Find(args)
		if err != nil {
			return nil, err
		}
		for _, f := range fronts {
			if !f.hasDSN {
				f.dsn, f.hasDSN = dsn, true
			}
		}
	}
	for i, f := range fronts {
		for _, other := range fronts[:i] {
			if f.address == other.address && (f.address.Path != "" || f.address.Port != 0) {
				return nil, command.UsageError(fmt.Sprintf("%s: the address is set twice; remove one", f.from))
			}
		}
	}
	return fronts, nil
}

// admit determines which clients can log in. It returns an error for settings that
// would accept clients by mistake.
func (p *options) admit(plan *plan, logger *slog.Logger) error {
	password, err := findPassword(p.passwordFile)
	if err != nil {
		return err
	}
	if p.passwordFile != "" {
		warnIfReadable(logger, "--password-file", p.passwordFile)
	}
	switch {
	case p.trust && password.value != "":
		return command.UsageError("--trust requires no password, but " + password.from + " sets one; remove one")
	case p.trust && p.allowRemote:
		return command.UsageError("--trust is not used with --allow-remote; set " + passwordVariable + " or --password-file instead")
	case (p.tlsCert == "") != (p.tlsKey == ""):
		return command.UsageError("--tls-cert and --tls-key must be set together")
	}
	for _, f := range plan.fronts {
		if f.address.Local() {
			continue
		}
		switch {
		case !p.allowRemote:
			return command.UsageError(fmt.Sprintf("%s: other machines could connect; listen on 127.0.0.1, or add --allow-remote", f.from))
		case password.value == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set %s or --password-file", f.from, passwordVariable))
		case p.tlsCert == "":
			return command.UsageError(fmt.Sprintf("%s: other machines can connect; set --tls-cert and --tls-key", f.from))
		}
	}
	open := func(f *front) bool { return !f.address.Private() }
	switch asks := slices.ContainsFunc(plan.fronts, open) && !p.trust; {
	case asks && password.value == "":
		plan.password = generatePassword()
	case asks:
		plan.password = password
	case password.value != "":
		logger.Warn("the password is for TCP; the permissions of Unix sockets decide who can connect", "setting", password.from)
	}
	if p.tlsCert != "" {
		if plan.certificate, err = certfile.Load(p.tlsCert, p.tlsKey, logger); err != nil {
			return fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
	}
	return nil
}

// addUpstreams creates an upstream for each DSN.
func (plan *plan) addUpstreams(p *options, logger *slog.Logger) error {
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
		f.upstream = &upstream{Upstream: u, name: plan.nameOf(u), dsn: f.dsn}
		byDSN[f.dsn] = f.upstream
		plan.upstreams = append(plan.upstreams, f.upstream)
	}
	if p.clientUser && !slices.ContainsFunc(plan.upstreams, (*upstream).leavesUserOpen) {
		return command.UsageError("--client-user is not used with a user in the DSN or in PGUSER; remove one")
	}
	if p.config != "" && secret {
		warnIfReadable(logger, "--config", p.config)
	}
	return nil
}

// inFront adds the front to an error if there are several.
func inFront(fronts []*front, f *front, err error) error {
	if len(fronts) == 1 {
		return err
	}
	return errors.New(f.from + ": " + strings.TrimPrefix(err.Error(), "entrapg: "))
}

// nameOf returns a unique name of an upstream for logs and metrics.
func (plan *plan) nameOf(u *engine.Upstream) string {
	name := serversOf(u)
	taken := func(u *upstream) bool { return u.name == name }
	for n := 2; slices.ContainsFunc(plan.upstreams, taken); n++ {
		name = fmt.Sprintf("%s#%d", serversOf(u), n)
	}
	return name
}

// tlsConfig returns the configuration for clients of a front, or nil.
func (plan *plan) tlsConfig(f *front) *tls.Config {
	if plan.certificate == nil || f.address.Path != "" {
		return nil
	}
	return &tls.Config{GetCertificate: plan.certificate.GetCertificate, MinVersion: tls.VersionTLS12}
}

// check logs in to each upstream once.
func (plan *plan) check(ctx context.Context, out *terminal.Output) error {
	var failure error
	for _, u := range plan.upstreams {
		start := time.Now()
		if err := u.Check(ctx); err != nil {
			failure = command.ErrReported
			out.Hang(out.Bad("✗ "), terminal.Sprintf("%s: %s", u.name, strings.TrimPrefix(err.Error(), "entrapg: ")))
			out.Printf("  run '%s' for an explanation and the fix\n", dsn.Doctor(u.dsn))
			continue
		}
		out.Hang(out.Good("✓ "), terminal.Sprintf("%s: logged in as %s in %s", u.name, u.Stats().User, terminal.Milliseconds(time.Since(start))))
	}
	return failure
}

func (plan *plan) close() {
	for _, u := range plan.upstreams {
		u.Close()
	}
}
