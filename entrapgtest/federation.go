package entrapgtest

import (
	"crypto/rsa"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A federation is the issuer of a Kubernetes cluster that the tenant trusts for workload
// identity. Each application trusts one service account.
type federation struct {
	key func() (*rsa.PrivateKey, error) // generated on first use
}

// issue returns a token for the service account that an application trusts.
func (f *federation) issue(app *Principal) (string, error) {
	key, err := f.key()
	if err != nil {
		return "", err
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.RegisteredClaims{
		Issuer: "https://oidc." + tenantDomain + "/", Subject: serviceAccount(app),
		Audience: jwt.ClaimStrings{"api://AzureADTokenExchange"},
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)),
	})
	token.Header["kid"] = "federation"
	return token.SignedString(key)
}

// verify checks an application's token. Only its subject and its dates need checks,
// because only issue signs with the key.
func (f *federation) verify(token string, app *Principal) error {
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithExpirationRequired(),
		jwt.WithSubject(serviceAccount(app)),
	).Parse(token, func(token *jwt.Token) (any, error) {
		if err := checkDates(token); err != nil {
			return nil, err
		}
		key, err := f.key()
		if err != nil {
			return nil, err
		}
		return &key.PublicKey, nil
	})
	return err
}

// serviceAccount returns the Kubernetes service account that an application trusts.
func serviceAccount(app *Principal) string { return "system:serviceaccount:default:" + app.ObjectID }
