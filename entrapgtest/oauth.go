package entrapgtest

import (
	"bytes"
	"encoding/json"

	"github.com/jackc/pgx/v5/pgproto3"
)

// bearer is the SASL mechanism for tokens in PostgreSQL 18 and later.
// https://www.rfc-editor.org/rfc/rfc7628
const bearer = "OAUTHBEARER"

// bearerMethod requests a token by OAUTHBEARER.
type bearerMethod struct {
	scope     string
	discovery string // URL of the tenant's OpenID Connect configuration
}

// request returns no token if the client first requests the discovery URL.
func (m bearerMethod) request(c *client) (string, error) {
	kind, body, err := c.request(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{bearer}})
	if err != nil {
		return "", err
	}
	var first pgproto3.SASLInitialResponse
	if kind != 'p' || first.Decode(body) != nil || first.AuthMechanism != bearer {
		return "", errEnded
	}
	// n,a=USER,^Ahost=HOST^Aauth=Bearer TOKEN^A^A
	for field := range bytes.SplitSeq(first.Data, []byte{1}) {
		if token, ok := bytes.CutPrefix(field, []byte("auth=Bearer ")); ok {
			return string(token), nil
		}
	}
	return "", nil
}

// reject sends OAUTHBEARER's error status. A client may disconnect after it.
func (m bearerMethod) reject(c *client) {
	status, err := json.Marshal(map[string]string{
		"status": "invalid_token", "scope": m.scope, "openid-configuration": m.discovery,
	})
	if err == nil {
		_, _, _ = c.request(&pgproto3.AuthenticationSASLContinue{Data: status})
	}
}
