package token

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// jwt matches the beginning of an Entra token, a JSON object in base64url.
var jwt = regexp.MustCompile(`eyJ[\w-]{16,}`)

var errRedacted = errors.New("the credential failed with an error that contains a token and is not repeated here")

// redact returns an error of the credential in a form that callers can share. It
// replaces an error whose text contains a secret or anything that looks like an Entra
// token: MSAL, for example, quotes responses that it cannot parse.
func redact(err error, secrets ...string) error {
	text := err.Error()
	if jwt.MatchString(text) ||
		slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(text, s) }) {
		return errRedacted
	}
	return &sharedError{text, err}
}

// A sharedError is an error whose text several goroutines can read at once. The
// Error methods of azidentity read the response's body, which is a data race.
type sharedError struct {
	text string
	err  error
}

func (e *sharedError) Error() string { return e.text }

// Unwrap returns the credential's own error.
func (e *sharedError) Unwrap() error { return e.err }
