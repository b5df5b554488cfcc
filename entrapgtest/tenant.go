package entrapgtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
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

// A Tenant stands in for Microsoft Entra ID: it knows principals and issues
// signed tokens to them. All methods are safe for concurrent use.
type Tenant struct {
	ID string // a GUID

	mu       sync.Mutex // guards what follows
	key      *rsa.PrivateKey
	keyID    string
	life     time.Duration
	faults   Faults
	requests map[string]int // by resource
}

func newTenant(life time.Duration) (*Tenant, error) {
	t := &Tenant{ID: uuid.NewString(), life: life, requests: map[string]int{}}
	return t, t.rotate()
}

// rotate replaces the signing key, after which no server accepts the tokens
// issued before.
func (t *Tenant) rotate() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key, t.keyID = key, uuid.NewString()
	return nil
}

// Requests counts the tokens that the tenant has been asked for, those that it
// failed to give among them.
func (t *Tenant) Requests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, count := range t.requests {
		n += count
	}
	return n
}

// RequestsFor counts the requests for one resource, such as
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

// issue answers one request for a token.
func (t *Tenant) issue(ctx context.Context, p *Principal, scope string) (azcore.AccessToken, error) {
	resource, ok := strings.CutSuffix(scope, "/.default")
	t.mu.Lock()
	t.requests[resource]++
	faults := t.faults
	t.mu.Unlock()

	if err := sleep(ctx, faults.EntraDelay); err != nil {
		return azcore.AccessToken{}, err
	}
	switch {
	case faults.EntraDown:
		return azcore.AccessToken{}, errors.New("entrapgtest: Entra is down, as Faults.EntraDown has it")
	case p.Kind == Group:
		return azcore.AccessToken{}, fmt.Errorf("entrapgtest: %s is a group, and groups get no tokens: ask as a member", p.Name)
	case !ok:
		return azcore.AccessToken{}, fmt.Errorf("entrapgtest: AADSTS70011: the provided value for the input parameter 'scope' is not valid: %q has no /.default", scope)
	}
	return t.sign(p, resource)
}

func (t *Tenant) sign(p *Principal, resource string) (azcore.AccessToken, error) {
	t.mu.Lock()
	key, keyID, life := t.key, t.keyID, t.life
	if t.faults.TokenLife > 0 {
		life = t.faults.TokenLife
	}
	t.mu.Unlock()

	issued := time.Now()
	expires := issued.Add(life).Truncate(time.Microsecond)
	if life >= 10*time.Second {
		expires = expires.Truncate(time.Second)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, p.claims(resource, issued, expires))
	token.Header["kid"], token.Header["x5t"] = keyID, keyID
	signed, err := token.SignedString(key)
	return azcore.AccessToken{Token: signed, ExpiresOn: expires.UTC()}, err
}

// verify returns the claims of a token that this tenant has signed with its
// present key. It does not look at what they say.
func (t *Tenant) verify(token string) (jwt.MapClaims, error) {
	t.mu.Lock()
	key, keyID := &t.key.PublicKey, t.keyID
	t.mu.Unlock()
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(token, claims, func(token *jwt.Token) (any, error) {
		if token.Header["kid"] != keyID {
			return nil, errors.New("signed with an unknown key")
		}
		return key, nil
	})
	return claims, err
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
