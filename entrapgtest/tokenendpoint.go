package entrapgtest

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// A tokenEndpoint issues tokens to applications and users over HTTPS.
type tokenEndpoint struct{ tenant *Tenant }

// requiredParameters are the required parameters of each grant type.
var requiredParameters = map[string][]string{
	"":                   {"grant_type"},
	"client_credentials": {"client_id", "scope"},
	"password":           {"client_id", "scope", "username", "password"},
}

// token answers a token request.
func (e tokenEndpoint) token(r *http.Request) (any, error) {
	_ = r.ParseForm() // parameters that cannot be parsed are missing
	form := r.PostForm
	if id, secret, ok := r.BasicAuth(); ok {
		form.Set("client_id", unescape(id))
		form.Set("client_secret", unescape(secret))
	}
	resource, invalid := resourceOf(form.Get("scope"))
	if err := e.tenant.tokens.begin(r.Context(), resource); err != nil {
		return nil, err
	}
	if err := e.tenant.checkName(r.PathValue("tenant")); err != nil {
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

	app := e.tenant.directory.application(client)
	if app != nil {
		if err := e.authenticate(r, app); err != nil {
			return nil, err
		}
	} else if grant == "client_credentials" || uuid.Validate(client) != nil { // any GUID is accepted as a public client
		return nil, unknownApplication.with(client, tenantDomain)
	}
	if invalid != nil {
		return nil, invalid
	}
	if grant == "client_credentials" {
		token, err := e.tenant.tokens.issue(app, app.ClientID, resource)
		return tokenBody(token), err
	}
	user, err := e.logIn(form.Get("username"), form.Get("password"))
	if err != nil {
		return nil, err
	}
	token, err := e.tenant.tokens.issue(user, client, resource)
	if err != nil {
		return nil, err
	}
	body := tokenBody(token)
	body["id_token"], body["client_info"], err = e.account(user, client, "https://"+r.Host, token.ExpiresOn)
	return body, err
}

func tokenBody(token azcore.AccessToken) map[string]any {
	left := secondsLeft(token.ExpiresOn)
	return map[string]any{"token_type": "Bearer", "expires_in": left, "ext_expires_in": left, "access_token": token.Token}
}

// authenticate checks an application's secret or assertion in a request.
func (e tokenEndpoint) authenticate(r *http.Request, app *Principal) error {
	secret, assertion := r.PostForm.Get("client_secret"), r.PostForm.Get("client_assertion")
	switch {
	case secret != "" && !sameSecret(secret, app.ClientSecret):
		return wrongSecret.with(app.ClientID)
	case secret != "":
		return nil
	case assertion == "":
		return noClientCredential
	case r.PostForm.Get("client_assertion_type") != jwtBearer:
		return missingParameter.with("client_assertion_type")
	}

	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(assertion, &claims); err != nil {
		return malformedAssertion
	}
	selfSigned := claims.Issuer == app.ClientID // otherwise issued by Kubernetes
	var err error
	if selfSigned {
		const path = "/oauth2/v2.0/token"
		base := "https://" + r.Host + "/"
		err = verifyAssertion(assertion, app, base+e.tenant.ID+path, base+tenantDomain+path)
	} else {
		err = e.tenant.federation.verify(assertion, app)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return expiredAssertion
	case selfSigned:
		return wrongCertificate.with(err)
	default:
		return notFederated.with(claims.Issuer, claims.Subject, strings.Join(claims.Audience, " "))
	}
}

// logIn returns the user with a name and password.
func (e tokenEndpoint) logIn(name, password string) (*Principal, error) {
	user := e.tenant.directory.user(name)
	switch {
	case user == nil:
		return nil, unknownUser.with(name, tenantDomain)
	case !sameSecret(password, user.Password):
		return nil, wrongPassword
	}
	return user, nil
}

// account returns an ID token and client info, with which MSAL identifies the user.
func (e tokenEndpoint) account(
	user *Principal, client, base string, expires time.Time,
) (idToken, clientInfo string, err error) {
	now := time.Now().Unix()
	idToken, err = e.tenant.tokens.sign(jwt.MapClaims{
		"aud": client, "iss": base + "/" + e.tenant.ID + "/v2.0", "iat": now, "nbf": now, "exp": max(expires.Unix(), now+1),
		"oid": user.ObjectID, "sub": user.ObjectID, "tid": e.tenant.ID, "name": user.Name,
		"preferred_username": user.Name, "ver": "2.0",
	})
	info, _ := json.Marshal(map[string]string{"uid": user.ObjectID, "utid": e.tenant.ID})
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
