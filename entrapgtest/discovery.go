package entrapgtest

import (
	"encoding/base64"
	"math/big"
	"net/http"

	"github.com/golang-jwt/jwt/v5"
)

// discovery serves the documents that clients read before they request a token. All
// links in them use the host of the request.
type discovery struct{ tenant *Tenant }

func (d discovery) document(content func(host string) map[string]any) http.Handler {
	return respond(func(r *http.Request) (any, error) {
		if err := d.tenant.tokens.faults.get().outage(); err != nil {
			return nil, err
		}
		return content(r.Host), d.tenant.checkName(r.PathValue("tenant"))
	}, entraBody)
}

func (d discovery) configuration(host string) map[string]any {
	base := "https://" + host + "/" + d.tenant.ID
	return map[string]any{
		"issuer":                                base + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
		"response_types_supported":              []string{"id_token"},
		"scopes_supported":                      []string{"openid", "profile", "offline_access"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{jwt.SigningMethodRS256.Alg()},
	}
}

func (d discovery) keys(string) map[string]any {
	key, keyID := d.tenant.tokens.current()
	return map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": jwt.SigningMethodRS256.Alg(), "kid": keyID, "x5t": keyID,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}}
}

// instance answers instance discovery for this host, as Microsoft does for its own.
func (d discovery) instance(host string) map[string]any {
	return map[string]any{
		"api-version":               "1.1",
		"tenant_discovery_endpoint": "https://" + host + "/" + d.tenant.ID + "/v2.0/.well-known/openid-configuration",
		"metadata": []map[string]any{{
			"preferred_network": host, "preferred_cache": host,
			"aliases": []string{host},
		}},
	}
}

// realm tells MSAL that Entra itself checks passwords, not a federated provider.
func (d discovery) realm(string) map[string]any {
	return map[string]any{
		"ver": "1.0", "account_type": "Managed", "domain_name": tenantDomain,
		"cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": "urn:federation:MicrosoftOnline",
	}
}
