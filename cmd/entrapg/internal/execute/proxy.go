package execute

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// ignoredByProxy are keys of libpq that package entrapg, and therefore the proxy,
// does not support and that can be ignored. sslcrl, sslcrldir and requirepeer are
// not among them, because they make verification stricter.
var ignoredByProxy = []string{
	"gssdelegation", "gsslib", "load_balance_hosts", "oauth_ca_file", "oauth_client_id", "oauth_client_secret",
	"oauth_issuer", "oauth_scope", "scram_client_key", "scram_server_key", "sslcompression", "sslkeylogfile",
	"tcp_user_timeout",
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

// runByProxy runs a command and a proxy for it, which stops when the command
// ends. The command can open connections as long as it runs.
func runByProxy(ctx context.Context, std command.Streams, login *inspect.Login, dsn, path string, argv []string) error {
	upstream, err := engine.NewUpstream(dsn)
	if err != nil {
		return err
	}
	defer upstream.Close()
	if err := upstream.RequestToken(ctx); err != nil {
		return err // once, and not for each login of the command
	}
	if err := checkDatabase(login, upstream.Stats().User, "a claim of the token"); err != nil {
		return err
	}
	p, err := proxy.StartPrivate(ctx, upstream)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	defer p.Close()
	env := environ(os.Environ(), proxyVariablesOf(p, login), runtime.GOOS == "windows")
	return resultOf(std, argv[0], runChild(path, argv, env))
}

// notForProxy are libpq's variables for the connection to the server, which do not
// apply to the connection to the proxy.
var notForProxy = []string{
	"PGCHANNELBINDING", "PGGSSDELEGATION", "PGGSSLIB", "PGHOSTADDR", "PGKRBSRVNAME", "PGLOADBALANCEHOSTS",
	"PGPASSFILE", "PGREQUIREAUTH", "PGREQUIREPEER", "PGREQUIRESSL", "PGSERVICE", "PGSERVICEFILE", "PGSSLCERT",
	"PGSSLCERTMODE", "PGSSLCOMPRESSION", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLKEY", "PGSSLMAXPROTOCOLVERSION",
	"PGSSLMINPROTOCOLVERSION", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLSNI", "PGTARGETSESSIONATTRS",
}

// proxyVariablesOf returns libpq's variables for a client of a proxy. They include
// the DSN's server parameters: the command's own defaults, such as psql's
// application_name, would otherwise override those in the proxy.
func proxyVariablesOf(p *proxy.Private, login *inspect.Login) map[string]string {
	env := map[string]string{
		"PGHOST": p.Host, "PGPORT": strconv.Itoa(int(p.Port)), "PGUSER": p.User,
		"PGPASSWORD": p.Password, "PGDATABASE": login.Config.Database, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable",
	}
	for _, name := range notForProxy {
		env[name] = ""
	}
	addParameters(env, login.Config.RuntimeParams)
	return env
}
