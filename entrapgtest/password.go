package entrapgtest

import (
	"bytes"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A loginMethod gets a token from a client.
type loginMethod interface {
	// request requests the token. The token is empty if the client sends none.
	request(c *client) (token string, err error)

	// reject tells the client that its token is rejected, before the error response.
	reject(c *client)
}

// passwordMethod requests a cleartext password, as Azure does for a mapped role.
type passwordMethod struct{}

func (passwordMethod) request(c *client) (string, error) {
	kind, body, err := c.request(&pgproto3.AuthenticationCleartextPassword{})
	if err != nil {
		return "", err
	}
	password, ended := bytes.CutSuffix(body, []byte{0})
	if kind != 'p' || !ended {
		return "", errEnded
	}
	return string(password), nil
}

func (passwordMethod) reject(*client) {}
