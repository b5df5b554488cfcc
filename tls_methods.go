package entrapg

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// tokenMethods are the authentication methods that send a token inside TLS: a
// cleartext password, which Azure requests, and OAUTHBEARER, which PostgreSQL 18
// supports. A server that requests another one is not Azure's, or the role is not
// mapped to Entra.
const tokenMethods = "password,oauth"

// requireTokenMethods limits pgx to the methods that send tokens, and returns an
// error for settings that forbid them.
func requireTokenMethods(config *pgconn.Config) error {
	if config.ChannelBinding == "require" {
		return &ConfigError{
			Setting: "channel_binding",
			Problem: "require is for SCRAM, and tokens are sent as cleartext passwords inside TLS; omit it",
		}
	}
	if config.RequireAuth == "" {
		config.RequireAuth = tokenMethods
		return nil
	}
	methods := strings.Split(config.RequireAuth, ",")
	for i := range methods {
		methods[i] = strings.TrimSpace(methods[i])
	}
	negated := strings.HasPrefix(methods[0], "!")
	for _, method := range strings.Split(tokenMethods, ",") {
		if negated && !slices.Contains(methods, "!"+method) || !negated && slices.Contains(methods, method) {
			return nil
		}
	}
	return &ConfigError{
		Setting: "require_auth",
		Problem: "must allow password or oauth, which send tokens; use require_auth=" + tokenMethods + " or omit it",
	}
}
