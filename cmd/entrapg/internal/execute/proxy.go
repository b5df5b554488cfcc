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

// withoutOptionalKeys returns a DSN that does not set keys of libpq that the proxy ignores.
func withoutOptionalKeys(dsn string) string { return withoutKeys(dsn, optionalKeys()) }

func optionalKeys() []string { return keysOf(func(k libpqKey) bool { return k.optional }) }

// openForProxy opens a login as inspect.Open does, but ignores optional keys of libpq. The
// warnings name them.
func openForProxy(dsn string) (login *inspect.Login, warnings []string, err error) {
	settings := connstring.Parse(connstring.Clean(dsn))
	for _, key := range optionalKeys() {
		if setting := settings[key]; setting.Value != "" {
			warnings = append(warnings, fmt.Sprintf("%s (%s) is ignored: the proxy does not support it", key, setting.Origin))
		}
	}
	login, err = inspect.Open(withoutOptionalKeys(dsn))
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
	unsetSecrets()
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

// proxyVariablesOf returns libpq's variables for a client of a proxy. They include
// the DSN's server parameters: the command's own defaults, such as psql's
// application_name, would otherwise override those in the proxy.
func proxyVariablesOf(p *proxy.Private, login *inspect.Login) map[string]string {
	env := map[string]string{
		"PGHOST": p.Host, "PGPORT": strconv.Itoa(int(p.Port)), "PGUSER": p.User,
		"PGPASSWORD": p.Password, "PGDATABASE": login.Config.Database, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable",
	}
	for _, name := range replaced {
		env[name] = ""
	}
	for _, key := range keysOf(func(k libpqKey) bool { return k.variable != "" && !k.proxied }) {
		env[libpqKeys[key].variable] = ""
	}
	addParameters(env, login.Config.RuntimeParams)
	return env
}
