package entrapgtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const (
	tenantDomain  = "contoso.example"
	resourceGroup = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/entrapgtest"
	azureCLI      = "04b07795-8ddb-461a-bbee-02f9e1bf7b46" // application ID, the same in every tenant
)

// A Tenant emulates Microsoft Entra ID. It has principals, and issues signed tokens to
// them in this process and over HTTPS. Its methods are safe for concurrent use.
type Tenant struct {
	ID string // a GUID

	url         string // over HTTPS
	identityURL string // of the managed-identity endpoint, over HTTP
	thumbprint  string // SHA-1 of the certificate over HTTPS, in hexadecimal digits
	client      *http.Client
	federation  func() (*rsa.PrivateKey, error) // signs federated tokens; generated on first use
	seed        seed                            // derives IDs and secrets

	arcKeys arcKeys

	mu         sync.Mutex // guards the following
	key        *rsa.PrivateKey
	keyID      string
	life       time.Duration
	faults     Faults
	requests   map[string]int // by resource
	principals []*Principal
	hosts      []*Host
}

func newTenant(st *state, life time.Duration) *Tenant {
	return &Tenant{
		ID: st.Seed.id("tenant"), seed: st.Seed, key: st.signingKey, keyID: st.Seed.id("key"),
		life: life, requests: map[string]int{}, federation: sync.OnceValues(newKey),
	}
}

func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// sharedKey is the signing key of this process. Its tenants share the key, as all tenants
// of Entra share theirs, because generating one is a good part of the work of a start. A
// tenant rejects the tokens of others by their key ID.
var sharedKey = sync.OnceValues(newKey)

// rotate replaces the signing key. Servers then reject all tokens issued before.
func (t *Tenant) rotate() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key, t.keyID = key, uuid.NewString()
	return nil
}

// Requests returns the number of token requests, in this process and over HTTP,
// including those that failed.
func (t *Tenant) Requests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, count := range t.requests {
		n += count
	}
	return n
}

// RequestsFor returns the number of token requests for one resource, such as
// "https://management.azure.com".
func (t *Tenant) RequestsFor(resource string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests[resource]
}

func (t *Tenant) setFaults(f Faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = f
}

func (t *Tenant) fault() Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.faults
}

// beginRequest counts a token request, delays it, and returns the error of an injected
// fault. It is called for every request, in this process and over HTTP.
func (t *Tenant) beginRequest(ctx context.Context, resource string) error {
	t.mu.Lock()
	t.requests[resource]++
	faults := t.faults
	t.mu.Unlock()
	if err := sleep(ctx, faults.EntraDelay); err != nil {
		return err
	}
	return faults.failure()
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

// issue returns a token of p for a resource. application is the ID of the client
// application.
func (t *Tenant) issue(p *Principal, application, resource string) (azcore.AccessToken, error) {
	t.mu.Lock()
	life, faults := t.life, t.faults
	t.mu.Unlock()
	if faults.TokenLife > 0 {
		life = faults.TokenLife
	}
	switch {
	case p.Kind == Group:
		return azcore.AccessToken{}, fmt.Errorf("%s is a group, and Entra issues no tokens to groups; use a member", p.Name)
	case p.Kind.objectType() == "user" && faults.Entra == EntraWantsMFA:
		return azcore.AccessToken{}, wantsMFA.with(resource)
	}

	issued := time.Now()
	expires := issued.Add(life).Truncate(time.Microsecond)
	if life >= 10*time.Second {
		expires = expires.Truncate(time.Second)
	}
	signed, err := t.sign(p.claims(application, resource, issued, expires))
	return azcore.AccessToken{Token: signed, ExpiresOn: expires.UTC()}, err
}

func (t *Tenant) sign(claims jwt.MapClaims) (string, error) {
	t.mu.Lock()
	key, keyID := t.key, t.keyID
	t.mu.Unlock()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"], token.Header["x5t"] = keyID, keyID
	return token.SignedString(key)
}

// verify returns the claims of a token that this tenant has signed with its current
// key. It does not check the claims.
func (t *Tenant) verify(token string) (jwt.MapClaims, error) {
	t.mu.Lock()
	key, keyID := &t.key.PublicKey, t.keyID
	t.mu.Unlock()
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	_, err := parser.ParseWithClaims(token, claims, func(token *jwt.Token) (any, error) {
		if token.Header["kid"] != keyID {
			return nil, errors.New("signed with an unknown key")
		}
		return key, nil
	})
	return claims, err
}

// issuers returns the issuers in access tokens of versions 1.0 and 2.0.
func (t *Tenant) issuers() []any {
	return []any{"https://sts.windows.net/" + t.ID + "/", "https://login.microsoftonline.com/" + t.ID + "/v2.0"}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
