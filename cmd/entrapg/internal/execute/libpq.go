package execute

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/roots"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// A libpqKey describes how exec passes a key of the DSN to a program that uses libpq.
type libpqKey struct {
	variable string // libpq's environment variable, or empty
	ignored  string // why a key without a variable is ignored, and what to do

	rejected bool // package entrapg rejects the key, or sends it to the server
	optional bool // exec --proxy ignores the rejected key, which does not make verification stricter
	proxied  bool // the variable is also for the connection to the proxy of exec --proxy
}

const (
	notAVariable = "libpq reads it only from a connection string"
	noBearer     = "libpq cannot send the token by OAUTHBEARER, so the token is sent as a password"
)

// libpqKeys are the keys of PostgreSQL 15 to 18, and oauth_ca_file of 19, except
// those that libpqVariables and proxyVariablesOf handle themselves.
// https://www.postgresql.org/docs/current/libpq-connect.html
var libpqKeys = map[string]libpqKey{
	"application_name":          {variable: "PGAPPNAME", proxied: true},
	"channel_binding":           {variable: "PGCHANNELBINDING"},
	"client_encoding":           {variable: "PGCLIENTENCODING", proxied: true},
	"connect_timeout":           {variable: "PGCONNECT_TIMEOUT", proxied: true},
	"fallback_application_name": {ignored: notAVariable + "; use application_name", rejected: true},
	"gssdelegation":             {variable: "PGGSSDELEGATION", rejected: true, optional: true},
	"gssencmode":                {variable: "PGGSSENCMODE", rejected: true, proxied: true},
	"gsslib":                    {variable: "PGGSSLIB", rejected: true, optional: true},
	"hostaddr":                  {variable: "PGHOSTADDR"},
	"keepalives":                {ignored: notAVariable},
	"keepalives_count":          {ignored: notAVariable},
	"keepalives_idle":           {ignored: notAVariable},
	"keepalives_interval":       {ignored: notAVariable},
	"krbsrvname":                {variable: "PGKRBSRVNAME"},
	"load_balance_hosts":        {variable: "PGLOADBALANCEHOSTS", rejected: true, optional: true},
	"max_protocol_version":      {variable: "PGMAXPROTOCOLVERSION", proxied: true},
	"min_protocol_version":      {variable: "PGMINPROTOCOLVERSION", proxied: true},
	"oauth_ca_file":             {ignored: noBearer, rejected: true, optional: true},
	"oauth_client_id":           {ignored: noBearer, rejected: true, optional: true},
	"oauth_client_secret":       {ignored: noBearer, rejected: true, optional: true},
	"oauth_issuer":              {ignored: noBearer, rejected: true, optional: true},
	"oauth_scope":               {ignored: noBearer, rejected: true, optional: true},
	"replication":               {ignored: notAVariable, rejected: true},
	"require_auth":              {variable: "PGREQUIREAUTH"},
	"requirepeer":               {variable: "PGREQUIREPEER", rejected: true},
	"scram_client_key":          {ignored: notAVariable, rejected: true, optional: true},
	"scram_server_key":          {ignored: notAVariable, rejected: true, optional: true},
	"ssl_max_protocol_version":  {variable: "PGSSLMAXPROTOCOLVERSION"},
	"ssl_min_protocol_version":  {variable: "PGSSLMINPROTOCOLVERSION"},
	"sslcert":                   {variable: "PGSSLCERT"},
	"sslcertmode":               {variable: "PGSSLCERTMODE"},
	"sslcompression":            {variable: "PGSSLCOMPRESSION", rejected: true, optional: true},
	"sslcrl":                    {variable: "PGSSLCRL", rejected: true},
	"sslcrldir":                 {variable: "PGSSLCRLDIR", rejected: true},
	"sslkey":                    {variable: "PGSSLKEY"},
	"sslkeylogfile":             {ignored: notAVariable, rejected: true, optional: true},
	"sslnegotiation":            {variable: "PGSSLNEGOTIATION"},
	"sslpassword":               {ignored: notAVariable + "; the command asks for it if the key is encrypted"},
	"sslsni":                    {variable: "PGSSLSNI"},
	"target_session_attrs":      {variable: "PGTARGETSESSIONATTRS"},
	"tcp_user_timeout":          {ignored: notAVariable, rejected: true, optional: true},

	// Parameters of the server that libpq has variables for, which override
	// PGOPTIONS.
	"datestyle": {variable: "PGDATESTYLE", proxied: true},
	"geqo":      {variable: "PGGEQO", proxied: true},
	"timezone":  {variable: "PGTZ", proxied: true},
}

// keysOf returns the keys of libpq for which is reports true, in their order.
func keysOf(is func(libpqKey) bool) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(libpqKeys)), func(key string) bool { return !is(libpqKeys[key]) })
}

// replaced are variables of libpq whose settings exec reads itself and passes on in others.
var replaced = []string{"PGPASSFILE", "PGREQUIRESSL", "PGSERVICE", "PGSERVICEFILE", "PGSSLROOTCERT"}

// openForLibpq opens a login as inspect.Open does, but accepts all keys of libpq
// and adds them to its settings. The warnings name keys that libpq cannot read from
// the environment.
func openForLibpq(dsn string) (login *inspect.Login, warnings []string, err error) {
	settings := connstring.Parse(connstring.Clean(dsn))
	rejected := keysOf(func(k libpqKey) bool { return k.rejected })
	if login, err = inspect.Open(withoutKeys(dsn, rejected)); err != nil {
		return nil, nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(libpqKeys)) {
		setting, libpq := settings[key], libpqKeys[key]
		if libpq.rejected && setting.Value != "" {
			login.Settings[key] = setting
			delete(login.Config.RuntimeParams, key)
		}
		if libpq.ignored != "" && setting.Value != "" {
			warnings = append(warnings, fmt.Sprintf("%s (%s) is ignored: %s", key, setting.Origin, libpq.ignored))
		}
	}
	if login.Entra() {
		for _, s := range []connstring.Setting{
			settings["gssencmode"],
			{Value: os.Getenv("PGGSSENCMODE"), Origin: "PGGSSENCMODE"},
		} {
			if s.Value == "require" {
				warnings = append(warnings,
					fmt.Sprintf("gssencmode (%s) is ignored: the token is not sent with encryption by GSSAPI", s.Origin))
			}
		}
	}
	return login, warnings, nil
}

// withoutKeys returns a DSN that sets keys to empty values, which override its
// service file.
func withoutKeys(dsn string, keys []string) string {
	dsn = connstring.Clean(dsn)
	settings := connstring.Parse(dsn)
	for _, key := range keys {
		if settings.Value(key) != "" {
			dsn = connstring.WithOverride(dsn, key, "")
		}
	}
	return dsn
}

// libpqVariables returns libpq's variables for a login. Variables with an empty
// value must be unset.
func libpqVariables(login *inspect.Login, token *inspect.Token) (map[string]string, error) {
	config := login.Config
	if err := checkDatabase(login, token.User, "claim "+token.Claim); err != nil {
		return nil, err
	}
	env := map[string]string{
		"PGUSER": token.User, "PGPASSWORD": token.Value, "PGDATABASE": config.Database, "PGHOSTADDR": "",
	}
	for _, name := range replaced {
		env[name] = ""
	}
	for key, libpq := range libpqKeys {
		if value := login.Settings.Value(key); value != "" && libpq.variable != "" {
			env[libpq.variable] = value
		}
	}
	env["PGHOST"], env["PGPORT"] = hostsAndPorts(login)
	env["PGSSLMODE"], env["PGSSLROOTCERT"] = tlsFor(login)
	if err := makeAbsolute(env); err != nil {
		return nil, err
	}
	addParameters(env, config.RuntimeParams)
	if login.Entra() || login.Azure || env["PGGSSENCMODE"] == "" {
		// libpq tries GSSAPI encryption before TLS, and would not verify a certificate then.
		env["PGGSSENCMODE"] = "disable"
	}
	if login.Entra() {
		if !allowsPassword(config.RequireAuth) {
			return nil, &entrapg.ConfigError{
				Setting: "require_auth", Origin: login.Settings.OriginOutsideDSN("require_auth"),
				Problem: "must allow password, because libpq cannot send the token by OAUTHBEARER; use require_auth=password or omit it",
			}
		}
		env["PGREQUIREAUTH"] = "password"
	}
	return env, nil
}

// checkDatabase returns an error if a program could take the name of the database
// for a connection string, and log in to the server that it names. The default name
// is the user's, whose origin is derived if no user is set.
func checkDatabase(login *inspect.Login, user, derived string) error {
	const problem = "looks like a connection string, which programs such as vacuumdb would use to log in to another server; "
	switch database := login.Config.Database; {
	case isConnectionString(database):
		return &entrapg.ConfigError{
			Setting: "dbname", Origin: login.Settings.OriginOutsideDSN("dbname"),
			Problem: problem + "omit it, and name the database in the command",
		}
	case database == "" && isConnectionString(user):
		origin := login.Settings.OriginOutsideDSN("user")
		if login.Config.User == "" {
			origin = derived
		}
		return &entrapg.ConfigError{
			Setting: "user", Origin: origin,
			Problem: problem + "set dbname, because the user's name is the default",
		}
	}
	return nil
}

// isConnectionString reports whether libpq takes the name of a database for a
// connection string.
func isConnectionString(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://") ||
		strings.Contains(name, "=")
}

// allowsPassword reports whether a value of require_auth allows cleartext
// passwords.
func allowsPassword(requireAuth string) bool {
	methods := strings.Split(strings.ReplaceAll(requireAuth, " ", ""), ",")
	if strings.HasPrefix(methods[0], "!") {
		return !slices.Contains(methods, "!password")
	}
	return slices.Contains(methods, "password")
}

// hostsAndPorts returns the lists of hosts and ports.
func hostsAndPorts(login *inspect.Login) (hosts, ports string) {
	for _, h := range inspect.Hosts(&login.Config.Config) {
		hosts, ports = hosts+","+h.Host, ports+","+fmt.Sprint(h.Port)
	}
	return hosts[1:], ports[1:]
}

// tlsFor returns libpq's sslmode and sslrootcert that verify the server at least
// as package entrapg does. libpq has no mode that accepts the host's name or an
// Azure name, so verify-full replaces the modes that do. If libpq cannot read the
// file of root certificates, require does not verify the server, and verify-ca fails.
func tlsFor(login *inspect.Login) (mode, root string) {
	mode = login.SSLMode
	tls := login.Config.TLSConfig
	switch {
	case tls == nil:
		return mode, ""
	case login.Azure || login.Entra() && tls.RootCAs == nil:
		mode = "verify-full"
	case mode == "require" && tls.RootCAs != nil:
		mode = "verify-ca"
	}
	switch {
	case tls.RootCAs != nil:
		return mode, cmp.Or(login.Settings.Value("sslrootcert"), connstring.DefaultRootFile())
	case mode == "verify-full" || mode == "verify-ca":
		return mode, roots.System
	default:
		return mode, ""
	}
}

// fileVariables are libpq's variables that name a file or a directory.
var fileVariables = []string{"PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLCERT", "PGSSLKEY"}

// makeAbsolute makes the paths in env and in this process's environment absolute, because
// the command may change its directory. libpq ignores a list of revoked certificates
// that it does not find.
func makeAbsolute(env map[string]string) error {
	for _, name := range fileVariables {
		path, ok := env[name]
		if !ok {
			path = os.Getenv(name)
		}
		if path == "" || path == roots.System {
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return fmt.Errorf("exec: %s: %w", name, err)
		}
		env[name] = absolute
	}
	return nil
}

// addParameters adds the server's parameters to env: to libpq's variables, or
// else to PGOPTIONS. The server ignores the case of their names.
func addParameters(env, params map[string]string) {
	var words []string
	if options := params["options"]; options != "" {
		words = append(words, options)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		lower := strings.ToLower(name)
		variable := libpqKeys[lower].variable
		switch {
		case name == "options" || name == "replication": // handled above, or not a server parameter
		case variable == "":
			words = append(words, "-c "+optionEscaper.Replace(name+"="+params[name]))
		case env[variable] == "" || name != lower: // which only the DSN and service files can contain
			env[variable] = params[name]
		}
	}
	if len(words) > 0 {
		env["PGOPTIONS"] = strings.Join(words, " ")
	}
}

// optionEscaper escapes the separators of options on the server's command line,
// which are the white space of C's isspace.
var optionEscaper = strings.NewReplacer(
	`\`, `\\`, " ", `\ `, "\t", "\\\t", "\n", "\\\n", "\v", "\\\v", "\f", "\\\f", "\r", "\\\r",
)

// environ returns an environment with changes. A variable that is changed to an
// empty value is removed. Windows ignores the case of names.
func environ(old []string, changes map[string]string, ignoreCase bool) []string {
	canonical := func(name string) string {
		if ignoreCase {
			return strings.ToUpper(name)
		}
		return name
	}
	changed := map[string]bool{}
	for name := range changes {
		changed[canonical(name)] = true
	}
	env := slices.DeleteFunc(slices.Clone(old), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return changed[canonical(name)]
	})
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		if changes[name] != "" {
			env = append(env, name+"="+changes[name])
		}
	}
	return env
}
