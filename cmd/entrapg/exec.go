package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/internal/inspect"
)

func execCommand(streams) *cli.Command {
	var t target
	return &cli.Command{
		Name: "exec", ArgsUsage: "[DSN] -- COMMAND [ARGUMENT ...]",
		Usage:     "run psql, pg_dump or another program that reads PG* variables",
		UsageText: "entrapg exec -- psql\nentrapg exec host=shop.postgres.database.azure.com -- pg_dump -s shop",
		Description: "Runs the command with the settings of the DSN in its environment, as PGHOST, PGUSER, PGDATABASE, " +
			"PGSSLMODE and so on, and with a token as PGPASSWORD. If the DSN sets no user, the user is derived from the " +
			"token. The server is verified as in package entrapg. PGPASSFILE, PGSERVICE and PGHOSTADDR are removed, " +
			"because they would override these settings.\n" +
			"The command replaces entrapg: it gets the terminal, signals and standard input, and its exit code is the " +
			"result. A token is valid for about an hour, and a server checks it only at login: open sessions continue, " +
			"but a command that opens connections after that must be run again.\n" +
			aboutDSN,
		Flags: t.flags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			before, argv := cut(c.Args().Slice())
			if len(argv) == 0 {
				return wrongUse("exec: missing command; for example: entrapg exec -- psql")
			}
			login, err := t.open(before, "")
			if err != nil {
				return err
			}
			defer login.Close()
			path, err := exec.LookPath(argv[0])
			if err != nil {
				return err
			}
			token, err := login.Token(ctx, true)
			if err != nil {
				return err
			}
			return become(path, argv, environ(os.Environ(), libpq(login, token)))
		},
	}
}

// cut parts the DSN, if any, from the command. The -- between them may be left out
// where there is no DSN.
func cut(args []string) (dsn, argv []string) {
	i := slices.Index(args, "--")
	if i < 0 || i > 0 && !isDSN(args[0]) {
		return nil, args
	}
	return args[:i], args[i+1:]
}

// An exitCode is that of a program which was run.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// variables are those of libpq's, by the keys of a DSN, that pass on as they are.
// https://www.postgresql.org/docs/current/libpq-envars.html
var variables = map[string]string{
	"application_name": "PGAPPNAME", "channel_binding": "PGCHANNELBINDING",
	"client_encoding": "PGCLIENTENCODING", "connect_timeout": "PGCONNECT_TIMEOUT",
	"max_protocol_version": "PGMAXPROTOCOLVERSION", "min_protocol_version": "PGMINPROTOCOLVERSION", "require_auth": "PGREQUIREAUTH",
	"sslcert": "PGSSLCERT", "sslcertmode": "PGSSLCERTMODE", "sslkey": "PGSSLKEY",
	"sslnegotiation": "PGSSLNEGOTIATION", "sslsni": "PGSSLSNI",
	"target_session_attrs": "PGTARGETSESSIONATTRS", "timezone": "PGTZ",
}

// libpq says in variables of libpq what a login is. An empty one is to be unset:
// it would lead elsewhere.
func libpq(login *inspect.Login, token *inspect.Token) map[string]string {
	config := login.Config
	env := map[string]string{
		"PGUSER": token.User, "PGPASSWORD": token.Value, "PGDATABASE": config.Database,
		"PGHOSTADDR": login.Settings.Value("hostaddr"), "PGPASSFILE": "", "PGSERVICE": "", "PGSERVICEFILE": "", "PGREQUIRESSL": "",
		// Encryption by GSSAPI would come before TLS, and verify nobody.
		"PGGSSENCMODE": "disable",
	}
	for key, name := range variables {
		if value := login.Settings.Value(key); value != "" {
			env[name] = value
		}
	}
	hosts, ports := []string{config.Host}, []string{fmt.Sprint(config.Port)}
	for _, f := range config.Fallbacks {
		host, port := f.Host, fmt.Sprint(f.Port)
		if host != hosts[len(hosts)-1] || port != ports[len(ports)-1] {
			hosts, ports = append(hosts, host), append(ports, port)
		}
	}
	env["PGHOST"], env["PGPORT"] = strings.Join(hosts, ","), strings.Join(ports, ",")
	env["PGSSLMODE"], env["PGSSLROOTCERT"] = tlsFor(login)
	if options := options(config.RuntimeParams); options != "" {
		env["PGOPTIONS"] = options
	}
	return env
}

// tlsFor returns libpq's sslmode and sslrootcert that verify the server at least
// as package entrapg does. libpq has no mode that accepts the host's name or an
// Azure name, so verify-full replaces the modes that do.
func tlsFor(login *inspect.Login) (mode, root string) {
	mode, root = login.SSLMode, login.Settings.Value("sslrootcert")
	tls := login.Config.TLSConfig
	if login.Azure || login.Entra() && tls != nil && tls.RootCAs == nil {
		mode = "verify-full"
	}
	switch {
	case tls == nil:
		return mode, ""
	case root != "" || tls.RootCAs != nil: // of sslrootcert, or the file that libpq looks for too
		return mode, root
	case mode == "verify-full" || mode == "verify-ca":
		return mode, systemRoots()
	default:
		return mode, ""
	}
}

// bundles are where systems keep their roots, as in crypto/x509.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, Red Hat
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Red Hat
	"/etc/ssl/cert.pem",                                 // macOS, Alpine
}

// systemRoots is a file, which every libpq can read. Where there is none, libpq
// 16 and newer know the word system.
func systemRoots() string {
	for _, path := range append([]string{os.Getenv("SSL_CERT_FILE")}, bundles...) {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path
		}
	}
	return "system"
}

// options writes parameters for which libpq has no variable as options of the
// server's command line.
func options(params map[string]string) string {
	words := []string{}
	if said := params["options"]; said != "" {
		words = append(words, said)
	}
	escape := strings.NewReplacer(`\`, `\\`, " ", `\ `)
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if name != "options" && variables[name] == "" {
			words = append(words, "-c "+escape.Replace(name+"="+params[name]))
		}
	}
	return strings.Join(words, " ")
}

// environ changes an environment. What is empty is taken out.
func environ(old []string, changes map[string]string) []string {
	kept := slices.DeleteFunc(slices.Clone(old), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, changed := changes[name]
		return changed
	})
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		if changes[name] != "" {
			kept = append(kept, name+"="+changes[name])
		}
	}
	return kept
}
