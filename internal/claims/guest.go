package claims

import "strings"

// GuestRole explains which role a guest has.
const GuestRole = "the role of a guest is named by the user principal name with #EXT#, which the token does not contain; set user to it"

// GuestName returns the name of a guest's role, with a placeholder for the domain
// of the tenant, which the token does not contain.
func GuestName(c Claims) string {
	account := c.Text("unique_name")
	if email := c.Text("email"); email != "" {
		account = email
	}
	if _, mail, ok := strings.Cut(account, "#"); ok { // provider#mail
		account = mail
	}
	if UsableName(account) != nil || !strings.Contains(account, "@") {
		account = "NAME@DOMAIN"
	}
	return strings.ReplaceAll(account, "@", "_") + "#EXT#@" + tenantDomain
}

// tenantDomain stands for the tenant's first domain.
const tenantDomain = "TENANT.onmicrosoft.com"
