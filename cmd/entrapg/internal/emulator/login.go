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

// A login is one of the logins that the emulator has settings for: a principal
// with a role, its own or that of a group.
type login struct {
	principal
	role string
}

// selectLogins returns the logins as the principals with these names. Without names,
// it returns that of the first identity that is not an administrator, or else of the
// first other principal.
func selectLogins(principals []principal, names []string) ([]login, error) {
	if len(names) == 0 {
		first := slices.IndexFunc(principals, func(p principal) bool { return !p.admin() && p.managed() })
		if first < 0 {
			first = slices.IndexFunc(principals, func(p principal) bool { return !p.admin() && p.Kind != entrapgtest.Group })
		}
		return []login{{principals[first], principals[first].Name}}, nil
	}
	var logins []login
	for _, name := range names {
		i := slices.IndexFunc(principals, func(p principal) bool { return p.matches(name) })
		if i < 0 {
			var known []string
			for _, p := range principals {
				known = append(known, fmt.Sprintf("%q", p.name))
			}
			return nil, command.UsageError(fmt.Sprintf("--as: unknown principal %q; the principals are %s",
				name, strings.Join(known, ", ")))
		}
		who, role := principals[i], principals[i].Name
		if who.Kind == entrapgtest.Group { // a member logs in as the group
			if len(who.members) == 0 {
				return nil, command.UsageError(fmt.Sprintf("--as: group %q has no members; add one with --group %s=MEMBER",
					name, quote.Shell(name)))
			}
			who = principals[slices.IndexFunc(principals, func(p principal) bool { return p.matches(who.members[0]) })]
		}
		logins = append(logins, login{who, role})
	}
	return logins, nil
}

// settings returns the variables with which programs use the server and the tenant as this
// login.
func (l login) settings(ctx context.Context, server *entrapgtest.Server, principals []principal) ([]variable, error) {
	token, err := l.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{entrapgtest.DefaultScope}})
	if err != nil {
		return nil, err
	}
	ca := server.CAFile()
	all := []variable{{"DATABASE_URL", server.DSN()}, {"PGUSER", l.role}}
	if l.managed() {
		all = append(all, l.host(server.Tenant, principals)...)
	} else {
		all = append(all, variables(l.Environ())...)
		all = append(all, variable{"AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential"}, variable{"SSL_CERT_FILE", ca},
			variable{"REQUESTS_CA_BUNDLE", ca})
	}
	all = append(all, variable{"PGSSLROOTCERT", ca}, variable{"NODE_EXTRA_CA_CERTS", ca},
		variable{"PGPASSWORD", token.Token})
	for _, name := range []string{
		"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH",
		"AZURE_USERNAME", "AZURE_PASSWORD",
	} {
		if !slices.ContainsFunc(all, func(v variable) bool { return v.name == name }) {
			all = append(all, variable{name, ""}) // values of another login would take precedence
		}
	}
	return all, nil
}

// host returns the variables of a host that has the identity, and the other user-assigned
// identities that are not administrators.
func (l login) host(t *entrapgtest.Tenant, principals []principal) []variable {
	identities := []*entrapgtest.Principal{l.Principal}
	for _, p := range principals {
		if p.Kind == entrapgtest.UserAssignedIdentity && p.Principal != l.Principal && !p.admin() {
			identities = append(identities, p.Principal)
		}
	}
	all := append(variables(t.NewHost(identities...).Environ()),
		variable{"AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential"})
	if l.Kind == entrapgtest.UserAssignedIdentity {
		all = append(all, variable{"AZURE_CLIENT_ID", l.ClientID})
	}
	return all
}
