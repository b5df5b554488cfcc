package emulator

import (
	"slices"

	"github.com/entrapg/entrapg/entrapgtest"
)

// A principal is one that the emulator has created from a spec.
type principal struct {
	*entrapgtest.Principal
	spec
}

func (p principal) admin() bool { return p.kind == "admin" }

// managed reports whether a host provides the principal's tokens.
func (p principal) managed() bool {
	return p.Kind == entrapgtest.UserAssignedIdentity || p.Kind == entrapgtest.SystemAssignedIdentity
}

// secrets returns the variables that a program needs to log in as the principal,
// without the password of an administrator.
func (p principal) secrets() []variable {
	var secrets []variable
	if p.ClientID != "" {
		secrets = append(secrets, variable{"AZURE_CLIENT_ID", p.ClientID})
	}
	if p.ClientSecret != "" {
		secrets = append(secrets, variable{"AZURE_CLIENT_SECRET", p.ClientSecret})
	}
	if p.Password != "" && !p.admin() {
		secrets = append(secrets, variable{"AZURE_PASSWORD", p.Password})
	}
	return secrets
}

// createPrincipals creates principals and puts them into their groups.
func createPrincipals(t *entrapgtest.Tenant, all []spec) []principal {
	var principals []principal
	for _, s := range all {
		principals = append(principals, principal{kinds[s.kind](t, s.name), s})
	}
	for _, group := range principals {
		for _, name := range group.members {
			member := principals[slices.IndexFunc(principals, func(p principal) bool { return p.matches(name) })]
			if !slices.Contains(member.Groups, group.Principal) {
				member.Groups = append(member.Groups, group.Principal)
			}
		}
	}
	return principals
}
