package entrapg

import (
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// settings are what a DSN and options come to: all that a login needs. They
// never change once made.
type settings struct {
	config *pgx.ConnConfig // secured; without password, and without user where it is derived
	tokens *tokenSource
	stdlib []stdlib.OptionOpenDB
}

// newSettings puts a DSN and options together. Parse is pgx's or pgxpool's.
func newSettings(dsn string, opts []Option, parse func(string) (*pgx.ConnConfig, error)) (*settings, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	target, err := parseDSN(dsn, parse)
	if err != nil {
		return nil, err
	}
	config := target.config
	for _, adjust := range o.adjust {
		adjust(config)
	}
	if config.Password != "" {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it sets Password, which is for the token: leave it alone"}
	}
	if config.User != "" {
		if err := usableName(config.User); err != nil {
			return nil, &UsernameError{Problem: "the one that is set cannot be a role's name", Err: err}
		}
	}
	if err := secure(&config.Config, target.sslmode); err != nil {
		return nil, err
	}

	azure, err := commonCloud(hosts(&config.Config))
	if err != nil {
		return nil, err
	}
	tokens := &tokenSource{
		credential: &lazyCredential{made: o.credential, create: func() (azcore.TokenCredential, error) { return defaultCredential(azure) }},
		name:       "DefaultAzureCredential",
		scope:      azure.scope,
		logger:     o.logger,
		now:        time.Now,
	}
	if o.credential != nil {
		tokens.name = credentialName(o.credential)
	}
	switch {
	case target.scope != "" && o.scope != "" && target.scope != o.scope:
		return nil, &ConfigError{Setting: "entra_scope", Problem: "the DSN and WithScope name different scopes: keep one"}
	case target.scope != "":
		tokens.scope = target.scope
	case o.scope != "":
		tokens.scope = o.scope
	}
	if config.User == "" {
		tokens.management = azure.management
	}
	return &settings{config: config, tokens: tokens, stdlib: o.stdlib}, nil
}

// user returns the user to log in as with t: the one that is set, else the one
// that t is for.
func (s *settings) user(t *token) (string, error) {
	if s.config.User != "" {
		return s.config.User, nil
	}
	return t.user, t.userErr
}
