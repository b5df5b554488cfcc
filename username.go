package entrapg

import (
	"context"
	"log/slog"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg/internal/claims"
)

// nameToken finds out whom t is for. Where the token names nobody, one for Azure
// Resource Manager may: it is asked for once for each identity. The error tells
// that this failed where it was needed, and may succeed another time; t is not
// named then.
func (s *tokenSource) nameToken(ctx context.Context, credential azcore.TokenCredential, t *token, logger *slog.Logger) error {
	c, err := claims.Parse(t.value)
	if err != nil {
		t.userErr = &UsernameError{Problem: err.Error() + ", so that no user can be derived from it"}
		return nil
	}
	if t.name = c.RoleName(); t.name.Role != "" {
		return nil
	}
	identity := c.Identity()
	s.mu.Lock()
	if identity != "" && identity == s.identity {
		t.name = s.identityName
	}
	s.mu.Unlock()
	if t.name.Role != "" {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	answer, lookup := s.getToken(ctx, credential, s.management)
	if lookup != nil {
		s.failures.Add(1)
		logger.Warn("entrapg: no token for Azure Resource Manager to derive the user from", "error", lookup)
	} else if m, err := claims.Parse(answer.Token); err == nil {
		if t.name = m.RoleName(); t.name.Role != "" {
			t.name.Claim += " of a token for Azure Resource Manager"
		}
	}
	if t.name.Role == "" {
		t.name = c.ApplicationName()
	}
	switch {
	case t.name.Role == "" && lookup == nil:
		t.userErr = &UsernameError{Problem: "nothing in the token names one", Claims: c.Keys()}
	case t.name.Role == "":
		return &UsernameError{Problem: "nothing in the token names one", Claims: c.Keys(), Err: lookup}
	case lookup == nil:
		s.mu.Lock()
		s.identity, s.identityName = identity, t.name
		s.mu.Unlock()
	}
	return nil
}
