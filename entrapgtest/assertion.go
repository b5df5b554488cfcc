package entrapgtest

import (
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// verifyAssertion checks a token that an application has signed itself, with the key of
// one of its certificates. audience are the URLs that the token can be for.
func verifyAssertion(assertion string, app *Principal, audience ...string) error {
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg(), jwt.SigningMethodPS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(app.ClientID), jwt.WithSubject(app.ClientID), jwt.WithAudience(audience...),
	).Parse(assertion, func(token *jwt.Token) (any, error) {
		if err := checkDates(token); err != nil {
			return nil, err
		}
		for _, c := range app.Certificates {
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
