package pgwire

import (
	"bytes"
	"encoding/json"
	"strings"
)

const (
	// piece is the length of the shortest part of a secret that is removed.
	piece = 32

	// block is the length of the search pattern: every piece in a text contains a block
	// at a multiple of block.
	block = piece / 2

	// shortest is the length of the shortest secret that is removed. Tokens
	// have thousands of characters; a word of a few would occur by chance.
	shortest = 8

	redacted = "[token]"
)

// Redact returns b without secret and without pieces of it that are 32 bytes or
// longer. If there is nothing to remove, it returns b itself.
func Redact(b []byte, secret string) []byte {
	if len(secret) < shortest || len(b) < min(piece, len(secret)) {
		return b
	}
	if len(secret) < piece {
		return bytes.ReplaceAll(b, []byte(secret), []byte(redacted))
	}
	var cleaned []byte
	kept := 0 // up to here, b is processed
	for i := 0; i+block <= len(b); i += block {
		if i < kept {
			continue
		}
		start, end := findRun(b, i, secret)
		if start == end {
			continue
		}
		cleaned = append(append(cleaned, b[kept:max(start, kept)]...), redacted...)
		kept = end
	}
	if kept == 0 {
		return b
	}
	return append(cleaned, b[kept:]...)
}

// findRun returns a part of b that contains the block at i, occurs in secret and
// is at least as long as a piece. It returns 0, 0 if there is none.
func findRun(b []byte, i int, secret string) (start, end int) {
	pattern := string(b[i : i+block])
	for from := 0; ; {
		at := strings.Index(secret[from:], pattern)
		if at < 0 {
			return 0, 0
		}
		at += from
		left, right := 0, block
		for left < min(i, at) && b[i-left-1] == secret[at-left-1] {
			left++
		}
		for right < min(len(b)-i, len(secret)-at) && b[i+right] == secret[at+right] {
			right++
		}
		if left+right >= piece {
			return i - left, i + right
		}
		from = at + 1
	}
}

// redactStatus redacts the error of OAUTHBEARER (RFC 7628, section 3.2.2), in
// which JSON can spell the token in many ways. It returns invalid JSON as null.
func redactStatus(b []byte, secret string) []byte {
	var status struct {
		Status              string `json:"status"`
		Scope               string `json:"scope,omitempty"`
		OpenIDConfiguration string `json:"openid-configuration,omitempty"`
	}
	if json.Unmarshal(b, &status) != nil {
		return []byte("null")
	}
	for _, s := range []*string{&status.Status, &status.Scope, &status.OpenIDConfiguration} {
		*s = string(Redact([]byte(*s), secret))
	}
	cleaned, err := json.Marshal(status)
	if err != nil {
		return []byte("null")
	}
	return cleaned
}
