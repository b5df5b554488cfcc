package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/listener"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// ignoredByProxy are keys of libpq that package entrapg, and therefore the proxy,
// does not support and that can be ignored. sslcrl, sslcrldir and requirepeer are
// not among them, because they make verification stricter.
var ignoredByProxy = []string{
	"gssdelegation", "gsslib", "load_balance_hosts", "oauth_ca_file", "oauth_client_id", "oauth_client_secret", "oauth_issuer",
	"oauth_scope", "scram_client_key", "scram_server_key", "sslcompression", "sslkeylogfile", "tcp_user_timeout",
}

// openForProxy opens a login as inspect.Open does, but ignores the keys in
// ignoredByProxy. The warnings name them.
func openForProxy(dsn string) (login *inspect.Login, warnings []string, err error) {
	settings := connstring.Parse(connstring.Clean(dsn))
	for _, key := range ignoredByProxy {
		if setting := settings[key]; setting.Value != "" {
			warnings = append(warnings, fmt.Sprintf("%s (%s) is ignored: the proxy does not support it", key, setting.Origin))
		}
	}
	login, err = inspect.Open(withoutKeys(dsn, ignoredByProxy))
	return login, warnings, err
}

// executeByProxy runs a command and a proxy for it, which stops when the command
// ends. The command can open connections as long as it runs.
func executeByProxy(ctx context.Context, std streams, login *inspect.Login, dsn, path string, argv []string) error {
	upstream, err := engine.NewUpstream(dsn)
	if err != nil {
		return err
	}
	u := &proxyUpstream{Upstream: upstream, name: serversOf(upstream)}
	front := &proxyFront{from: "exec: the proxy's address", upstream: u}
	plan := &proxyPlan{fronts: []*proxyFront{front}, upstreams: []*proxyUpstream{u}}
	defer plan.close()
	if err := u.RequestToken(ctx); err != nil {
		return err // once, and not for each login of the command
	}

	if runtime.GOOS == "windows" {
		front.address = listener.Address{Host: "127.0.0.1"}
		plan.password = generatePassword()
	} else {
		dir, err := privateDirectory()
		if err != nil {
			return fmt.Errorf("exec: the directory of the proxy's socket: %w", err)
		}
		defer os.Remove(dir)
		if front.address, err = listener.Parse(dir, defaultPort); err != nil {
			return fmt.Errorf("exec: %w", err)
		}
	}
	// The proxy does not log, because the command reports failed logins.
	s := newProxyServer(plan, slog.New(slog.DiscardHandler))
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.shutdown(nil, nil)
	env := environ(os.Environ(), proxyVariablesOf(front, plan.password, login), runtime.GOOS == "windows")
	return resultOf(std, argv[0], runChild(path, argv, env))
}

// privateDirectory creates a directory for a socket, which only this user can
// access.
func privateDirectory() (string, error) {
	parent := os.TempDir()
	if len(parent) > 60 { // leaves no room for the socket's name on every system
		parent = "/tmp"
	}
	return os.MkdirTemp(parent, "entrapg-")
}

// notForProxy are libpq's variables for the connection to the server, which do not
// apply to the connection to the proxy.
var notForProxy = []string{
	"PGCHANNELBINDING", "PGGSSDELEGATION", "PGGSSLIB", "PGHOSTADDR", "PGKRBSRVNAME", "PGLOADBALANCEHOSTS", "PGPASSFILE", "PGREQUIREAUTH",
	"PGREQUIREPEER", "PGREQUIRESSL", "PGSERVICE", "PGSERVICEFILE", "PGSSLCERT", "PGSSLCERTMODE", "PGSSLCOMPRESSION", "PGSSLCRL",
	"PGSSLCRLDIR", "PGSSLKEY", "PGSSLMAXPROTOCOLVERSION", "PGSSLMINPROTOCOLVERSION", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLSNI",
	"PGTARGETSESSIONATTRS",
}

// proxyVariablesOf returns libpq's variables for a client of a front. They include
// the DSN's server parameters: the command's own defaults, such as psql's
// application_name, would otherwise override those in the proxy.
func proxyVariablesOf(f *proxyFront, password proxyPassword, login *inspect.Login) map[string]string {
	env := map[string]string{
		"PGHOST": f.address.ClientHost(), "PGPORT": strconv.Itoa(int(f.address.Port)), "PGUSER": f.upstream.Stats().User,
		"PGPASSWORD": password.value, "PGDATABASE": login.Config.Database, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable",
	}
	for _, name := range notForProxy {
		env[name] = ""
	}
	addParameters(env, login.Config.RuntimeParams)
	return env
}
