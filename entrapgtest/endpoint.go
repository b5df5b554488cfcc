package entrapgtest

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// URL returns the URL of the tenant, which is the value for AZURE_AUTHORITY_HOST.
func (t *Tenant) URL() string { return t.url }

// ClientOptions returns options with which azidentity's credentials use the tenant and
// trust its certificate. Also set DisableInstanceDiscovery in the credential's own
// options; otherwise it sends a request to Microsoft first.
func (t *Tenant) ClientOptions() azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: t.url},
		Transport: t.client,
	}
}

// endpoint emulates login.microsoftonline.com.
func (t *Tenant) endpoint() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{tenant}/v2.0/.well-known/openid-configuration", t.document(t.configuration))
	mux.Handle("GET /{tenant}/discovery/v2.0/keys", t.document(t.keys))
	mux.Handle("GET /common/discovery/instance", t.document(t.instance))
	mux.Handle("GET /common/userrealm/{upn}", t.document(t.realm))
	mux.Handle("GET "+serviceFabricPath, respond(t.serviceFabric, serviceFabricBody))
	mux.Handle("POST /{tenant}/oauth2/v2.0/token", respond(t.token, entraBody))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path, r.URL.RawPath = strings.ToLower(r.URL.Path), strings.ToLower(r.URL.RawPath)
		mux.ServeHTTP(w, r)
	})
}

// document serves a discovery document. All links in it use the host of the request.
func (t *Tenant) document(content func(host string) map[string]any) http.Handler {
	return respond(func(r *http.Request) (any, error) {
		if err := t.fault().outage(); err != nil {
			return nil, err
		}
		return content(r.Host), t.checkTenant(r)
	}, entraBody)
}

// checkTenant returns an error for a request to another tenant.
func (t *Tenant) checkTenant(r *http.Request) error {
	if name := r.PathValue("tenant"); name != "" && name != t.ID && name != tenantDomain {
		return unknownTenant.with(name)
	}
	return nil
}

func (t *Tenant) configuration(host string) map[string]any {
	base := "https://" + host + "/" + t.ID
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

func (t *Tenant) keys(string) map[string]any {
	t.mu.Lock()
	key, keyID := t.key.PublicKey, t.keyID
	t.mu.Unlock()
	return map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": jwt.SigningMethodRS256.Alg(), "kid": keyID, "x5t": keyID,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}}
}

// instance answers instance discovery for this host, as Microsoft does for its own.
func (t *Tenant) instance(host string) map[string]any {
	return map[string]any{
		"api-version":               "1.1",
		"tenant_discovery_endpoint": "https://" + host + "/" + t.ID + "/v2.0/.well-known/openid-configuration",
		"metadata": []map[string]any{{
			"preferred_network": host, "preferred_cache": host,
			"aliases": []string{host},
		}},
	}
}

// realm tells MSAL that Entra itself checks passwords, not a federated provider.
func (t *Tenant) realm(string) map[string]any {
	return map[string]any{
		"ver": "1.0", "account_type": "Managed", "domain_name": tenantDomain,
		"cloud_instance_name": "microsoftonline.com", "cloud_audience_urn": "urn:federation:MicrosoftOnline",
	}
}

// requiredParameters are the required parameters of each grant type.
var requiredParameters = map[string][]string{
	"":                   {"grant_type"},
	"client_credentials": {"client_id", "scope"},
	"password":           {"client_id", "scope", "username", "password"},
}

// token answers a token request.
func (t *Tenant) token(r *http.Request) (any, error) {
	_ = r.ParseForm() // parameters that cannot be parsed are missing
	form := r.PostForm
	if id, secret, ok := r.BasicAuth(); ok {
		form.Set("client_id", unescape(id))
		form.Set("client_secret", unescape(secret))
	}
	resource, invalid := resourceOf(form.Get("scope"))
	if err := t.beginRequest(r.Context(), resource); err != nil {
		return nil, err
	}
	if err := t.checkTenant(r); err != nil {
		return nil, err
	}
	grant, client := form.Get("grant_type"), form.Get("client_id")
	required, known := requiredParameters[grant]
	if !known {
		return nil, unsupportedGrant.with(grant)
	}
	for _, name := range required {
		if form.Get(name) == "" {
			return nil, missingParameter.with(name)
		}
	}

	app := t.find(func(p *Principal) bool { return p.ClientID != "" && strings.EqualFold(p.ClientID, client) })
	if app != nil {
		if err := t.authenticate(r, app); err != nil {
			return nil, err
		}
	} else if grant == "client_credentials" || uuid.Validate(client) != nil { // any GUID is accepted as a public client
		return nil, unknownApplication.with(client, tenantDomain)
	}
	if invalid != nil {
		return nil, invalid
	}
	if grant == "client_credentials" {
		token, err := t.issue(app, app.ClientID, resource)
		return tokenBody(token), err
	}
	user, err := t.logIn(form.Get("username"), form.Get("password"))
	if err != nil {
		return nil, err
	}
	token, err := t.issue(user, client, resource)
	if err != nil {
		return nil, err
	}
	body := tokenBody(token)
	body["id_token"], body["client_info"], err = t.account(user, client, "https://"+r.Host, token.ExpiresOn)
	return body, err
}

func tokenBody(token azcore.AccessToken) map[string]any {
	left := secondsLeft(token.ExpiresOn)
	return map[string]any{"token_type": "Bearer", "expires_in": left, "ext_expires_in": left, "access_token": token.Token}
}

// logIn returns the user with a name and password.
func (t *Tenant) logIn(name, password string) (*Principal, error) {
	user := t.find(func(p *Principal) bool {
		_, mail := splitAccount(p.account)
		return p.Password != "" && (strings.EqualFold(p.Name, name) || p.Kind == Guest && strings.EqualFold(mail, name))
	})
	switch {
	case user == nil:
		return nil, unknownUser.with(name, tenantDomain)
	case !sameSecret(password, user.Password):
		return nil, wrongPassword
	}
	return user, nil
}

// account returns an ID token and client info, with which MSAL identifies the user.
func (t *Tenant) account(
	user *Principal, client, base string, expires time.Time,
) (idToken, clientInfo string, err error) {
	now := time.Now().Unix()
	idToken, err = t.sign(jwt.MapClaims{
		"aud": client, "iss": base + "/" + t.ID + "/v2.0", "iat": now, "nbf": now, "exp": max(expires.Unix(), now+1),
		"oid": user.ObjectID, "sub": user.ObjectID, "tid": t.ID, "name": user.Name,
		"preferred_username": user.Name, "ver": "2.0",
	})
	info, _ := json.Marshal(map[string]string{"uid": user.ObjectID, "utid": t.ID})
	return idToken, base64.RawURLEncoding.EncodeToString(info), err
}

// sameSecret compares secrets in constant time.
func sameSecret(guess, secret string) bool {
	return subtle.ConstantTimeCompare([]byte(guess), []byte(secret)) == 1
}

// unescape decodes the form encoding that OAuth requires inside Basic authentication.
func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}
