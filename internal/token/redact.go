package token

import (
	"errors"
	"regexp"
	"strings"
)

// jwt matches the beginning of an Entra token, a JSON object in base64url.
var jwt = regexp.MustCompile(`eyJ[\w-]{16,}`)

var errRedacted = errors.New("the credential failed with an error that contains a token and is not repeated here")

// redact replaces an error whose text contains secret or anything that looks
// like an Entra token. MSAL, for example, quotes responses that it cannot parse.
func redact(err error, secret string) error {
	if err == nil || !jwt.MatchString(err.Error()) && (secret == "" || !strings.Contains(err.Error(), secret)) {
		return err
	}
	return errRedacted
}
