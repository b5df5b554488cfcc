package entrapg

import (
	"context"
	"log/slog"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/entrapg/entrapg/internal/claims"
)

// findUser finds out whom t is for. Where the token names nobody, one for Azure
// Resource Manager may; what comes of it is remembered for the identity. The error tells
// that this failed where it was needed, and may succeed another time; t says
// nothing then.
func (s *tokenSource) findUser(ctx context.Context, credential azcore.TokenCredential, t *token, logger *slog.Logger) error {
	c, err := claims.Parse(t.value)
	if err != nil {
		t.userErr = &UsernameError{Problem: err.Error() + ", so that no user can be derived from it"}
		return nil
	}
	if t.user = c.RoleName(); t.user.Role != "" {
		return nil
	}
	identity := c.Identity()
	s.mu.Lock()
	if identity != "" && identity == s.identity {
		t.user = s.identityUser
	}
	s.mu.Unlock()
	if t.user.Role != "" {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	answer, lookup := s.getToken(ctx, credential, s.key.management)
	if lookup != nil {
		s.failures.Add(1)
		logger.Warn("entrapg: no token for Azure Resource Manager to derive the user from", "error", lookup)
	} else if m, err := claims.Parse(answer.Token); err == nil {
		if t.user = m.RoleName(); t.user.Role != "" {
			t.user.Claim += " of a token for Azure Resource Manager"
		}
	}
	if t.user.Role == "" {
		t.user = c.ApplicationName()
	}
	switch {
	case t.user.Role == "" && lookup == nil:
		t.userErr = &UsernameError{Problem: "nothing in the token names one", Claims: c.Keys()}
	case t.user.Role == "":
		return &UsernameError{Problem: "nothing in the token names one", Claims: c.Keys(), Err: lookup}
	case lookup == nil:
		s.mu.Lock()
		s.identity, s.identityUser = identity, t.user
		s.mu.Unlock()
	}
	return nil
}
