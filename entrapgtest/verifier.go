package entrapgtest

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// verifierIterations is low because more would only slow down each login: the passwords
// are random. The superuser's keeps PostgreSQL's 4096, because clients use it, and some
// require that, such as lib/pq.
const verifierIterations = 1

// verifier returns what PostgreSQL stores to check a password by SCRAM-SHA-256 (RFC 5803).
// The password must be random and of at least 128 bits.
func verifier(password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, verifierIterations, sha256.Size)
	if err != nil {
		return "", err
	}
	sum := func(label string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(label))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sum("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s",
		verifierIterations, encode(salt), encode(stored[:]), encode(sum("Server Key"))), nil
}
