package emulator

import (
	"slices"
	"strings"

	"github.com/entrapg/entrapg/entrapgtest"
)

// kinds of principals, and what makes one.
var kinds = map[string]func(*entrapgtest.Tenant, string) *entrapgtest.Principal{
	"admin": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		if strings.Contains(name, "@") {
			return t.NewUser(name)
		}
		return t.NewUserAssignedIdentity(name)
	},
	"user":     func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewUser(name) },
	"guest":    func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewGuest(name) },
	"group":    (*entrapgtest.Tenant).NewGroup,
	"identity": (*entrapgtest.Tenant).NewUserAssignedIdentity,
	"system": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		return t.NewSystemAssignedIdentity(resource(name))
	},
	"service": (*entrapgtest.Tenant).NewServicePrincipal,
}

// resource returns the part of a resource ID after /providers/.
func resource(id string) string {
	if i := strings.LastIndex(strings.ToLower(id), "/providers/"); i >= 0 {
		return id[i+len("/providers/"):]
	}
	return id
}

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

// secrets are what a program needs to log in as the principal. Those of an
// administrator are not for everybody who reads them.
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
