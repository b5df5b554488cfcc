package entrapgtest

import (
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// FederatedToken returns a token like those that Kubernetes mounts for workload
// identity. It is valid for an hour. The tenant accepts it only as the client assertion
// of this service principal or user-assigned identity.
func (p *Principal) FederatedToken() (string, error) {
	if p.Kind != ServicePrincipal && p.Kind != UserAssignedIdentity {
		return "", fmt.Errorf("entrapgtest: a %s cannot have a federated credential", p.Kind)
	}
	key, err := p.tenant.federation()
	if err != nil {
		return "", err
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.RegisteredClaims{
		Issuer: "https://oidc." + tenantDomain + "/", Subject: p.serviceAccount(),
		Audience: jwt.ClaimStrings{"api://AzureADTokenExchange"},
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)),
	})
	token.Header["kid"] = "federation"
	return token.SignedString(key)
}

// serviceAccount returns the Kubernetes service account that the principal trusts.
func (p *Principal) serviceAccount() string { return "system:serviceaccount:default:" + p.ObjectID }

// authenticate checks the application's secret or assertion in a request.
func (t *Tenant) authenticate(r *http.Request, app *Principal) error {
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
		err = app.checkCertificate(assertion, "https://"+r.Host)
	} else {
		err = app.checkFederated(assertion)
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

// checkFederated checks a token of the tenant's federated issuer. Only its subject and
// its dates need checks, because only FederatedToken signs with that key.
func (p *Principal) checkFederated(assertion string) error {
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithExpirationRequired(),
		jwt.WithSubject(p.serviceAccount()),
	).Parse(assertion, func(token *jwt.Token) (any, error) {
		if err := checkDates(token); err != nil {
			return nil, err
		}
		key, err := p.tenant.federation()
		if err != nil {
			return nil, err
		}
		return &key.PublicKey, nil
	})
	return err
}

// checkCertificate checks an assertion that the application itself has signed,
// for the token endpoint at base.
func (p *Principal) checkCertificate(assertion, base string) error {
	const endpoint = "/oauth2/v2.0/token"
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg(), jwt.SigningMethodPS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(p.ClientID), jwt.WithSubject(p.ClientID),
		jwt.WithAudience(base+"/"+p.tenant.ID+endpoint, base+"/"+tenantDomain+endpoint),
	).Parse(assertion, func(token *jwt.Token) (any, error) {
		if err := checkDates(token); err != nil {
			return nil, err
		}
		for _, c := range p.Certificates {
			if key, ok := c.PublicKey.(*rsa.PublicKey); ok && hasThumbprint(token.Header, c) {
				return key, nil
			}
		}
		return nil, errors.New("the key was not found")
	})
	return err
}

// checkDates rejects dates out of range: how jwt converts them depends on the processor.
func checkDates(token *jwt.Token) error {
	claims, _ := token.Claims.(jwt.MapClaims)
	for _, name := range []string{"exp", "nbf", "iat"} {
		if date, set := claims[name]; set {
			if _, ok := exactTime(date); !ok {
				return fmt.Errorf("%s is not a date", name)
			}
		}
	}
	return nil
}

// hasThumbprint reports whether a token's header identifies a certificate. MSAL for Go
// encodes the thumbprint as base64 instead of base64url.
func hasThumbprint(header map[string]any, c *x509.Certificate) bool {
	old, current := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
	for name, sum := range map[string][]byte{"x5t": old[:], "x5t#S256": current[:]} {
		given, _ := header[name].(string)
		given = strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(given)
		if given == base64.RawURLEncoding.EncodeToString(sum) {
			return true
		}
	}
	return false
}
