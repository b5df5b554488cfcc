package claims

import (
	"encoding/base64"
	"testing"
)

// FuzzClaims derives users from arbitrary payloads.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"upn":"alice@contoso.example"}`, `{"upn":7,"appid":"a"}`, `{"upn":"\u0000"}`, `{"xms_mirid":"/providers//"}`,
		`{"xms_mirid":"/subscriptions/s/resourcegroups/g/providers/Microsoft.Web/sites/app/slots/blue"}`, `{"oid":1,"tid":[]}`,
		`{"xms_mirid":"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := Parse("e30." + base64.RawURLEncoding.EncodeToString(payload) + ".sig")
		if err != nil {
			return
		}
		for _, name := range []Name{c.RoleName(), c.ApplicationName()} {
			if (name.Role == "") != (name.Claim == "") || name.Role != "" && UsableName(name.Role) != nil {
				t.Errorf("derived %q", name)
			}
		}
		c.Principal()
	})
}
