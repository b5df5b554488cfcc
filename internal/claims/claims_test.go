package claims_test

import (
	"testing"

	"github.com/entrapg/entrapg/internal/claims"
)

func TestGuest_IsUserOfAnotherTenant(t *testing.T) {
	const tenant, home = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
	for name, test := range map[string]struct {
		claims claims.Claims
		want   bool
	}{
		"of a tenant": {
			claims.Claims{"tid": tenant, "idp": "https://sts.windows.net/" + home + "/", "unique_name": "bob@fabrikam.com", "scp": "x"},
			true,
		},
		"of Microsoft": {claims.Claims{"tid": tenant, "idp": "live.com", "unique_name": "live.com#bob@outlook.com", "scp": "x"}, true},
		"member": {
			claims.Claims{"tid": tenant, "idp": "https://sts.windows.net/" + tenant + "/", "unique_name": "alice@contoso.com", "scp": "x"},
			false,
		},
		"member, no idp":   {claims.Claims{"tid": tenant, "unique_name": "alice@contoso.com", "scp": "x"}, false},
		"has a name":       {claims.Claims{"tid": tenant, "idp": "live.com", "upn": "bob_outlook.com#EXT#@contoso.com", "scp": "x"}, false},
		"managed identity": {claims.Claims{"tid": tenant, "idp": "live.com", "idtyp": "app", "xms_idrel": "7 32"}, false},
		"application":      {claims.Claims{"tid": tenant, "idp": "live.com", "idtyp": "app", "appid": "x"}, false},
		"no tenant":        {claims.Claims{"idp": "live.com", "unique_name": "x", "scp": "x"}, false},
		"nothing":          {nil, false},
	} {
		if got := test.claims.Guest(); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestGuest_NameEndsWithPlaceholderOfDomain(t *testing.T) {
	for want, c := range map[string]claims.Claims{
		"bob_fabrikam.com#EXT#@TENANT.onmicrosoft.com": {"unique_name": "bob@fabrikam.com"},
		"bob_outlook.com#EXT#@TENANT.onmicrosoft.com":  {"unique_name": "live.com#bob@outlook.com"},
		"ann_outlook.com#EXT#@TENANT.onmicrosoft.com":  {"unique_name": "live.com#x", "email": "ann@outlook.com"},
		"NAME_DOMAIN#EXT#@TENANT.onmicrosoft.com":      {"unique_name": "bob"},
	} {
		if got := c.GuestName(); got != want {
			t.Errorf("%v: got %q, want %q", c, got, want)
		}
	}
}
