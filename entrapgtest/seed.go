package entrapgtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"io"
	"strconv"

	"github.com/google/uuid"
)

// A seed is the secret from which IDs and other secrets are derived.
type seed []byte

func (s seed) derive(purpose string, names ...string) []byte {
	mac := hmac.New(sha256.New, s)
	for _, name := range append([]string{purpose}, names...) {
		_, _ = io.WriteString(mac, strconv.Quote(name))
	}
	return mac.Sum(nil)
}

func (s seed) id(purpose string, names ...string) string {
	return uuid.NewHash(sha256.New(), uuid.Nil, s.derive(purpose, names...), 4).String()
}

// secret returns 26 letters and digits: 130 bits.
func (s seed) secret(purpose string, names ...string) string {
	return base32.StdEncoding.EncodeToString(s.derive(purpose, names...))[:26]
}
