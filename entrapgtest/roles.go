package entrapgtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"sync"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// roles are the roles that are mapped to principals. A primary and its replicas share
// them.
type roles struct {
	key []byte // derives the passwords in the real PostgreSQL

	mu          sync.Mutex // guards the following
	mapped      map[string]mapping
	provisioned bool // if true, the labels in the database are the mappings
}

func newRoles(key []byte) *roles { return &roles{key: key, mapped: map[string]mapping{}} }

// password returns the password of a mapped role in the real PostgreSQL. It is not
// stored, so that no session can read it.
func (r *roles) password(name string) string {
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(name))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// verifierIterations is low because more would only slow down each login: the passwords
// are random. The superuser's password keeps PostgreSQL's 4096 iterations, because clients
// use it, and some require that, such as lib/pq.
const verifierIterations = 1

// verifier returns what PostgreSQL stores to check the password of a mapped role.
func (r *roles) verifier(name string) string {
	return pgwire.NewVerifier(r.password(name), verifierIterations).Encode()
}

func (r *roles) find(name string) (m mapping, mapped, provisioned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, mapped = r.mapped[name]
	return m, mapped, r.provisioned
}

func (r *roles) add(name string, m mapping) (provisioned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mapped[name] = m
	return r.provisioned
}
