package execute

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
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
func runByProxy(ctx context.Context, std command.Streams, login *inspect.Login, upstreamDSN, path string, argv []string) error {
	upstream, err := engine.NewUpstream(upstreamDSN)
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
	if warning := bypasses(login, argv); warning != "" {
		fmt.Fprintln(std.Err, "entrapg: warning:", warning)
	}
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
	env["DATABASE_URL"] = urlOf(p, login.Config.Database)
	addParameters(env, login.Config.RuntimeParams)
	return env
}

// urlOf returns a proxy's DSN for programs that read DATABASE_URL. The host of a Unix socket
// is in the query, because not every driver accepts it elsewhere.
func urlOf(p *proxy.Private, database string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database}
	query := url.Values{"sslmode": {"disable"}}
	port := strconv.Itoa(int(p.Port))
	if p.Password == "" {
		query.Set("host", p.Host)
		query.Set("port", port)
		query.Set("user", p.User)
	} else {
		u.Host, u.User = net.JoinHostPort(p.Host, port), url.UserPassword(p.User, p.Password)
	}
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String()
}

// bypasses returns a warning for a command that names a host of the login, or "".
func bypasses(login *inspect.Login, argv []string) string {
	hosts, _ := hostsAndPorts(login)
	for host := range strings.SplitSeq(hosts, ",") {
		for _, arg := range argv[1:] {
			inDSN := dsn.Is(arg) && slices.Contains(strings.Split(connstring.InDSN(arg).Value("host"), ","), host)
			if inDSN || arg == host || arg == "--host="+host || arg == "-h"+host || login.Azure && strings.Contains(arg, host) {
				return fmt.Sprintf("an argument of the command names the host %s, so the command connects to it and not through "+
					"the proxy; remove the host from the arguments", host)
			}
		}
	}
	return ""
}
