package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/entrapgtest"
)

func emulatorCommand(std streams) *cli.Command {
	e := &emulator{}
	var file string
	principal := func(kind, usage string) cli.Flag {
		return eachFlag(kind, usage+"; can be repeated", func(s string) error {
			name, members, _ := strings.Cut(s, "=")
			e.add(kind, name, strings.FieldsFunc(members, func(r rune) bool { return r == ',' }))
			return nil
		})
	}
	return &cli.Command{
		Name:      "emulator",
		Usage:     "emulate Azure on this machine, for programs in any language",
		UsageText: "entrapg emulator\nentrapg emulator --identity shop-api --env-file emulator.env",
		Description: "Starts a PostgreSQL that checks Entra tokens as Azure does, an Entra tenant, and an endpoint of " +
			"managed identities, on fixed ports, until Ctrl-C or SIGTERM. It prints the settings of programs to paste into a " +
			"shell, and then a line for each login with the result and the reason. It requires the programs of PostgreSQL " +
			"on this machine, or another server set by --upstream.\n" +
			"Each principal gets a role of the same name. An administrator, db-admin unless --admin names others, can " +
			"create roles in the database postgres as on Azure, with pgaadauth_create_principal and the other functions " +
			"of pgaadauth, and map existing roles with SECURITY LABEL for \"pgaadauth\". With --no-roles, your own scripts " +
			"create the roles.\n" +
			"A principals file has a line for each principal: its kind (admin, user, guest, group, identity, system or " +
			"service), its name, and the members of a group. Names with @ are people. The name of a system identity is the " +
			"part of its resource ID after /providers/, such as Microsoft.Web/sites/shop. Without any principal, there is " +
			"an identity shop-api.",
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "addr", Value: "127.0.0.1:15432", Destination: &e.config.Addr,
				Usage: "`ADDRESS` of the server",
			},
			&cli.StringFlag{
				Name: "tenant-addr", Value: "127.0.0.1:15433", Destination: &e.config.TenantAddr,
				Usage: "`ADDRESS` of the tenant, over HTTPS",
			},
			&cli.StringFlag{
				Name: "identity-addr", Value: "127.0.0.1:15434", Destination: &e.config.IdentityAddr,
				Usage: "`ADDRESS` of the endpoint of managed identities, over HTTP",
			},
			eachFlag("hostname", "another `NAME` that the certificate is valid for; can be repeated", func(s string) error {
				e.config.Hostnames = append(e.config.Hostnames, s)
				return nil
			}),
			&cli.StringFlag{
				Name: "upstream", Destination: &e.config.Upstream,
				Usage: "`DSN` of a superuser, with password, on an existing PostgreSQL",
			},
			&cli.DurationFlag{
				Name: "token-life", Value: time.Hour, Destination: &e.config.TokenLife, Validator: atLeast(time.Second),
				Usage: "how long tokens are valid, a `DURATION` of at least 1s",
			},
			&cli.StringFlag{
				Name: "env-file", TakesFile: true, Destination: &e.envFile,
				Usage: "also write the settings into a new `FILE` in the format of .env files; it is removed at the end",
			},
			&cli.StringFlag{
				Name: "principals", TakesFile: true, Destination: &file,
				Usage: "read principals from this `FILE`",
			},
			&cli.BoolFlag{
				Name: "no-roles", Destination: &e.noRoles,
				Usage: "create no roles except those of administrators",
			},
			&cli.BoolFlag{
				Name: "group-sync", Destination: &e.config.GroupSync,
				Usage: "give members of groups their own roles: every 30 minutes, and when an administrator calls " +
					"pgaadauth_sync_roles_for_group_members",
			},
			principal("admin", "`NAME` of an Entra administrator"),
			principal("user", "user principal `NAME` of a user"),
			principal("guest", "`EMAIL` address of a guest, after an identity provider and # if it is not of another tenant: live.com#bob@outlook.com"),
			principal("group", "`NAME` of a group, and =MEMBER,MEMBER for its members"),
			principal("identity", "`NAME` of a user-assigned identity"),
			principal("system", "`RESOURCE` of a system-assigned identity"),
			principal("service", "display `NAME` of a service principal"),
		},
		ArgValidator: noArguments,
		Action: func(ctx context.Context, _ *cli.Command) error {
			if file != "" {
				if err := e.read(file); err != nil {
					return err
				}
			}
			return e.run(ctx, std.out)
		},
	}
}

// An emulator is what to start.
type emulator struct {
	config  entrapgtest.Config
	envFile string
	noRoles bool
	wanted  []wanted
}

// A wanted principal is one that the command line or a file asks for.
type wanted struct {
	kind, name string
	members    []string // of a group
}

func (e *emulator) add(kind, name string, members []string) {
	e.wanted = append(e.wanted, wanted{kind, name, members})
}

// read takes principals from a file.
func (e *emulator) read(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--principals: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case len(words) == 1 || makers[words[0]] == nil || len(words) > 2 && words[0] != "group":
			return wrongUse(fmt.Sprintf("--principals: %s, line %d: a line is KIND NAME, or group NAME MEMBER ...", path, n))
		}
		e.add(words[0], words[1], words[2:])
	}
	return nil
}

// makers make principals of each kind.
var makers = map[string]func(*entrapgtest.Tenant, string) *entrapgtest.Principal{
	"admin": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		if strings.Contains(name, "@") {
			return t.NewUser(name)
		}
		return t.NewUserAssignedIdentity(name)
	},
	"user":  func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewUser(name) },
	"guest": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewGuest(name) },
	"group": (*entrapgtest.Tenant).NewGroup, "identity": (*entrapgtest.Tenant).NewUserAssignedIdentity,
	"system": (*entrapgtest.Tenant).NewSystemAssignedIdentity, "service": (*entrapgtest.Tenant).NewServicePrincipal,
}

func (e *emulator) run(ctx context.Context, out *terminal) (err error) {
	var lines sync.Mutex // logins are told by many goroutines
	started := false
	e.config.OnLogin = func(l entrapgtest.Login) {
		lines.Lock()
		defer lines.Unlock()
		if started {
			writeLogin(out, l)
		}
	}
	server, err := entrapgtest.Start(ctx, e.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	principals, err := e.populate(ctx, server)
	if err != nil {
		return err
	}
	settings, err := settingsFor(ctx, server, principals)
	if err != nil {
		return err
	}
	if e.envFile != "" {
		remove, err := writeEnv(e.envFile, settings)
		if err != nil {
			return err
		}
		defer remove()
	}
	lines.Lock()
	e.introduce(out, server, principals, settings)
	started = true
	lines.Unlock()
	<-ctx.Done()
	out.printf("%s\n", out.dim("stopped"))
	return nil
}

// A resident is a principal that the emulator has.
type resident struct {
	*entrapgtest.Principal
	admin bool
}

func (e *emulator) populate(ctx context.Context, server *entrapgtest.Server) ([]resident, error) {
	wanted := e.wanted
	has := func(admin bool) bool {
		for _, w := range wanted {
			if (w.kind == "admin") == admin {
				return true
			}
		}
		return false
	}
	if !has(false) {
		e.add("identity", "shop-api", nil)
	}
	if !has(true) {
		e.add("admin", "db-admin", nil)
	}
	var all []resident
	byName := map[string]*entrapgtest.Principal{}
	for _, w := range e.wanted {
		if w.name == "" {
			return nil, wrongUse("emulator: a principal has no name")
		}
		p := makers[w.kind](server.Tenant, w.name)
		byName[w.name] = p
		all = append(all, resident{p, w.kind == "admin"})
	}
	for _, w := range e.wanted {
		for _, member := range w.members {
			m := byName[member]
			if m == nil {
				return nil, wrongUse(fmt.Sprintf("emulator: group %s: there is no principal %s", w.name, member))
			}
			m.Groups = append(m.Groups, byName[w.name])
		}
	}
	for _, r := range all {
		var err error
		switch {
		case r.admin:
			err = server.CreateAdmin(ctx, "", r.Principal)
		case !e.noRoles:
			err = server.CreateRole(ctx, "", r.Principal)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// A variable of the environment.
type variable struct{ name, value string }

// settingsFor leads programs to the server, as the first identity that is no
// administrator, or else with the token of the first principal that gets one.
func settingsFor(ctx context.Context, server *entrapgtest.Server, residents []resident) ([]variable, error) {
	settings := []variable{{"DATABASE_URL", server.DSN()}}
	var identities []*entrapgtest.Principal
	var first, admin *entrapgtest.Principal
	for _, r := range residents {
		managed := r.Kind == entrapgtest.UserAssignedIdentity || r.Kind == entrapgtest.SystemAssignedIdentity
		if managed {
			identities = append(identities, r.Principal)
		}
		switch {
		case r.Kind == entrapgtest.Group:
		case r.admin && admin == nil:
			admin = r.Principal
		case !r.admin && (first == nil || managed && first.ClientSecret+first.Password != ""):
			first = r.Principal
		}
	}
	if first == nil {
		first = admin
	}
	for _, entry := range server.Tenant.NewHost(identities...).Environ() {
		name, value, _ := strings.Cut(entry, "=")
		settings = append(settings, variable{name, value})
	}
	if first.Kind == entrapgtest.UserAssignedIdentity || first.Kind == entrapgtest.SystemAssignedIdentity {
		settings = append(settings, variable{"AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"})
		if first.Kind == entrapgtest.UserAssignedIdentity {
			settings = append(settings, variable{"AZURE_CLIENT_ID", first.ClientID})
		}
	} else {
		for _, entry := range first.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			settings = append(settings, variable{name, value})
		}
		settings = append(settings,
			variable{"AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential"}, variable{"SSL_CERT_FILE", server.CAFile()})
	}
	settings = append(settings, variable{"PGSSLROOTCERT", server.CAFile()}, variable{"NODE_EXTRA_CA_CERTS", server.CAFile()})
	token, err := first.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{databaseScope}})
	return append(settings, variable{"PGPASSWORD", token.Token}), err
}

// writeEnv writes a file that was not there before, and returns what removes it,
// unless somebody has put another one in its place.
func writeEnv(path string, settings []variable) (remove func(), err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil, fmt.Errorf("--env-file: %s is there already and stays as it is: remove it, or name another file", path)
	case err != nil:
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	written, err := f.Stat()
	remove = func() {
		if there, err := os.Lstat(path); err == nil && os.SameFile(there, written) {
			os.Remove(path)
		}
	}
	var b strings.Builder
	for _, v := range settings {
		fmt.Fprintf(&b, "%s='%s'\n", v.name, v.value)
	}
	_, writing := f.WriteString(b.String())
	if err := errors.Join(err, writing, f.Close()); err != nil {
		remove()
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	return remove, nil
}

func (e *emulator) introduce(out *terminal, server *entrapgtest.Server, residents []resident, settings []variable) {
	out.printf("%s PostgreSQL on %s, tenant on %s,\n  tokens live %s\n\n",
		out.good("✓"), out.bold(server.Addr()), server.Tenant.URL(), e.config.TokenLife)
	for _, r := range residents {
		what := string(r.Kind)
		switch {
		case r.admin:
			what += ", Entra administrator"
		case e.noRoles:
			what += ", no role yet"
		}
		out.printf("  %-24s  %s\n", r.Name, what)
		for _, entry := range r.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			if name == "AZURE_CLIENT_SECRET" || name == "AZURE_PASSWORD" || name == "AZURE_CLIENT_ID" && r.ClientID != "" {
				out.printf("  %-24s  %s\n", "", out.dim(name+"="+value))
			}
		}
		if len(r.Environ()) <= 2 && r.ClientID != "" {
			out.printf("  %-24s  %s\n", "", out.dim("AZURE_CLIENT_ID="+r.ClientID))
		}
	}
	out.printf("\n%s\n\n", out.bold("Paste this into a shell:"))
	for _, v := range settings {
		out.printf("export %s=%s\n", v.name, shell(v.value))
	}
	out.printf("\n")
	then := "and then, for example: entrapg exec -- psql"
	if e.envFile != "" {
		then = "or, as it is in " + e.envFile + " too: entrapg exec --env-file " + shell(e.envFile) + " -- psql"
	}
	out.hang("", escape(then))
	out.hang("", "Another identity is one AZURE_CLIENT_ID away. Ctrl-C stops it all.")
	out.printf("\n%s\n", out.bold("Logins:"))
}

// writeLogin writes one attempt to log in.
func writeLogin(t *terminal, l entrapgtest.Login) {
	verdict, why := t.good("✓"), "accepted"
	switch {
	case l.Code != "":
		verdict, why = t.bad("✗"), l.Code+" "+l.Reason
	case !l.Accepted:
		verdict, why = t.dim("·"), l.Reason
	}
	who := l.User + " → " + l.Database
	if l.Application != "" {
		who += ", " + l.Application
	}
	t.hang(sprintf("%s %s ", l.Time.Format(time.TimeOnly), verdict), escape(who+": "+why))
}
