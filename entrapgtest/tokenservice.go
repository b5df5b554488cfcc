package entrapgtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// A tokenService issues and verifies the tokens of a tenant. Every token request, in
// this process and over HTTP, calls begin and then issue.
type tokenService struct {
	tenantID string
	life     time.Duration
	faults   currentFaults

	mu       sync.Mutex // guards the following
	key      *rsa.PrivateKey
	keyID    string
	requests int
	counts   map[string]int // of requests, by resource
}

func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// sharedKey is the signing key of this process. Its tenants share the key, as all tenants
// of Entra share theirs, because generating one is a good part of the work of a start. A
// tenant rejects the tokens of others by their key ID.
var sharedKey = sync.OnceValues(newKey)

// begin counts a token request, delays it, and returns the error of an injected fault.
func (s *tokenService) begin(ctx context.Context, resource string) error {
	s.record(resource)
	faults := s.faults.get()
	if err := sleep(ctx, faults.EntraDelay); err != nil {
		return err
	}
	return faults.failure()
}

// Bounds of the resources that are counted. Clients name them before they authenticate.
const (
	maxResources = 256
	maxResource  = 256 // bytes of the name
)

// record counts a token request.
func (s *tokenService) record(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	_, known := s.counts[resource]
	switch {
	case !known && (len(s.counts) == maxResources || len(resource) > maxResource):
		return
	case !known:
		resource = strings.Clone(resource) // which can be a part of a large request
	}
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[resource]++
}

// issue returns a token of p for a resource. application is the ID of the client
// application.
func (s *tokenService) issue(p *Principal, application, resource string) (azcore.AccessToken, error) {
	faults, life := s.faults.get(), s.life
	if faults.TokenLife > 0 {
		life = faults.TokenLife
	}
	switch {
	case p.Kind == Group:
		return azcore.AccessToken{}, fmt.Errorf("%s is a group, and Entra issues no tokens to groups; use a member", p.Name)
	case p.Kind.objectType() == "user" && faults.Entra == EntraRequiresMFA:
		return azcore.AccessToken{}, requiresMFA.with(resource)
	}

	issued := time.Now()
	expires := issued.Add(life).Truncate(time.Microsecond)
	if life >= 10*time.Second {
		expires = expires.Truncate(time.Second)
	}
	signed, err := s.sign(p.claims(application, resource, issued, expires))
	return azcore.AccessToken{Token: signed, ExpiresOn: expires.UTC()}, err
}

func (s *tokenService) sign(claims jwt.MapClaims) (string, error) {
	key, keyID := s.current()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"], token.Header["x5t"] = keyID, keyID
	return token.SignedString(key)
}

// verify returns the claims of a token that is signed with the current key. It does not
// check the claims.
func (s *tokenService) verify(token string) (jwt.MapClaims, error) {
	key, keyID := s.current()
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	_, err := parser.ParseWithClaims(token, claims, func(token *jwt.Token) (any, error) {
		if token.Header["kid"] != keyID {
			return nil, errors.New("signed with an unknown key")
		}
		return &key.PublicKey, nil
	})
	return claims, err
}

// issuers returns the issuers in access tokens of versions 1.0 and 2.0.
func (s *tokenService) issuers() []any {
	return []any{
		"https://sts.windows.net/" + s.tenantID + "/",
		"https://login.microsoftonline.com/" + s.tenantID + "/v2.0",
	}
}

// current returns the signing key and its ID.
func (s *tokenService) current() (*rsa.PrivateKey, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key, s.keyID
}

// rotate replaces the signing key. Servers then reject all tokens issued before.
func (s *tokenService) rotate() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.keyID = key, uuid.NewString()
	return nil
}

// count returns the number of token requests.
func (s *tokenService) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// countFor returns the number of token requests for one resource.
func (s *tokenService) countFor(resource string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[resource]
}

// resourceOf returns the resource of a scope that ends in /.default. It ignores the
// OpenID Connect scopes that clients add when they sign in a user.
func resourceOf(scope string) (string, error) {
	scopes := slices.DeleteFunc(strings.Fields(scope), func(s string) bool {
		return s == "openid" || s == "profile" || s == "offline_access"
	})
	resource, ok := strings.CutSuffix(strings.Join(scopes, " "), "/.default")
	if !ok || len(scopes) != 1 {
		return resource, invalidScope.with(scope)
	}
	return resource, nil
}
