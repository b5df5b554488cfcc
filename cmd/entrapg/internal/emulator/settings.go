package emulator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A variable of the environment. One that has to be missing is empty.
type variable struct{ name, value string }

// A login is one of the logins that the emulator has settings for: a principal
// with a role, its own or that of a group.
type login struct {
	resident
	role string
}

// choose returns the principals that names ask for, or without names, the first
// identity that is no administrator, else the first other principal.
func choose(residents []resident, names []string) ([]login, error) {
	if len(names) == 0 {
		first := slices.IndexFunc(residents, func(r resident) bool { return !r.admin() && r.managed() })
		if first < 0 {
			first = slices.IndexFunc(residents, func(r resident) bool { return !r.admin() && r.Kind != entrapgtest.Group })
		}
		return []login{{residents[first], residents[first].Name}}, nil
	}
	var logins []login
	for _, name := range names {
		i := slices.IndexFunc(residents, func(r resident) bool { return r.goesBy(name) })
		if i < 0 {
			var known []string
			for _, r := range residents {
				known = append(known, fmt.Sprintf("%q", r.name))
			}
			return nil, command.UsageError(fmt.Sprintf("--as: unknown principal %q; the principals are %s", name, strings.Join(known, ", ")))
		}
		who, role := residents[i], residents[i].Name
		if who.Kind == entrapgtest.Group { // a member logs in as the group
			if len(who.members) == 0 {
				return nil, command.UsageError(fmt.Sprintf("--as: group %q has no members; add one with --group %s=MEMBER", name, quote.Shell(name)))
			}
			who = residents[slices.IndexFunc(residents, func(r resident) bool { return r.goesBy(who.members[0]) })]
		}
		logins = append(logins, login{who, role})
	}
	return logins, nil
}

// scope is that of tokens for databases in Azure's public cloud.
const scope = "https://ossrdbms-aad.database.windows.net/.default"

// settings lead programs to the server and the tenant, with one login.
func (l login) settings(ctx context.Context, server *entrapgtest.Server, residents []resident) ([]variable, error) {
	token, err := l.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return nil, err
	}
	ca := server.CAFile()
	all := []variable{{"DATABASE_URL", server.DSN()}, {"PGUSER", l.role}}
	if l.managed() {
		all = append(all, l.host(server.Tenant, residents)...)
	} else {
		all = append(all, variables(l.Environ())...)
		all = append(all, variable{"AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential"}, variable{"SSL_CERT_FILE", ca}, variable{"REQUESTS_CA_BUNDLE", ca})
	}
	all = append(all, variable{"PGSSLROOTCERT", ca}, variable{"NODE_EXTRA_CA_CERTS", ca}, variable{"PGPASSWORD", token.Token})
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME", "AZURE_PASSWORD"} {
		if !slices.ContainsFunc(all, func(v variable) bool { return v.name == name }) {
			all = append(all, variable{name, ""}) // those of another login would win
		}
	}
	return all, nil
}

// host returns the variables of a host that has the identity, and the other
// user-assigned identities that are no administrators.
func (l login) host(t *entrapgtest.Tenant, residents []resident) []variable {
	identities := []*entrapgtest.Principal{l.Principal}
	for _, r := range residents {
		if r.Kind == entrapgtest.UserAssignedIdentity && r.Principal != l.Principal && !r.admin() {
			identities = append(identities, r.Principal)
		}
	}
	all := append(variables(t.NewHost(identities...).Environ()), variable{"AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"})
	if l.Kind == entrapgtest.UserAssignedIdentity {
		all = append(all, variable{"AZURE_CLIENT_ID", l.ClientID})
	}
	return all
}

func variables(environ []string) []variable {
	var all []variable
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		all = append(all, variable{name, value})
	}
	return all
}

// A syntax is that of the shell which reads settings.
type syntax int

const (
	posix syntax = iota
	powershell
)

// syntaxFor returns the syntax of the usual shell of a system. MSYSTEM is set in
// Git Bash and other shells of MSYS2.
func syntaxFor(goos string, getenv func(string) string) syntax {
	if goos == "windows" && getenv("MSYSTEM") == "" {
		return powershell
	}
	return posix
}

// lines returns the commands that set variables.
func (s syntax) lines(all []variable) string {
	var b strings.Builder
	var missing []string
	for _, v := range all {
		switch {
		case v.value == "":
			missing = append(missing, v.name)
		case s == powershell:
			fmt.Fprintf(&b, "$env:%s = %s\n", v.name, quote.PowerShell(v.value))
		default:
			fmt.Fprintf(&b, "export %s=%s\n", v.name, quote.Shell(v.value))
		}
	}
	switch {
	case len(missing) == 0:
	case s == powershell:
		fmt.Fprintf(&b, "Remove-Item Env:%s -ErrorAction Ignore\n", strings.Join(missing, ", Env:"))
	default:
		fmt.Fprintf(&b, "unset %s\n", strings.Join(missing, " "))
	}
	return b.String()
}
