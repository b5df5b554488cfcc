package entrapg

import (
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// settings are what a DSN and options come to: all that a login needs. They
// never change once made.
type settings struct {
	config  *pgx.ConnConfig // secured; without password, and without user where it is derived
	sslmode string          // in force
	tokens  *tokenSource
	stdlib  []stdlib.OptionOpenDB
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
	if config.DialFunc == nil || config.LookupFunc == nil || config.BuildFrontend == nil || slices.Contains(config.Fallbacks, nil) {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it removes what pgx cannot do without: DialFunc, LookupFunc, BuildFrontend or a fallback is nil"}
	}
	if config.Password != "" {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it sets Password, which is for the token: leave it alone"}
	}
	if config.User != "" {
		if err := usableName(config.User); err != nil {
			return nil, &UsernameError{Problem: "the one that is set cannot be a role's name", Err: err}
		}
	}
	if err := cleartextAllowed(&config.Config); err != nil {
		return nil, err
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
		refusals:   map[string]*refusals{},
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
	return &settings{config: config, sslmode: target.sslmode, tokens: tokens, stdlib: o.stdlib}, nil
}

// cleartextAllowed refuses settings that forbid what a token is sent as: a
// cleartext password, inside TLS.
func cleartextAllowed(config *pgconn.Config) error {
	if config.ChannelBinding == "require" {
		return &ConfigError{Setting: "channel_binding", Problem: "channel_binding=require is for SCRAM, and a token is sent as a cleartext password inside TLS: leave it out"}
	}
	methods := strings.Split(config.RequireAuth, ",")
	for i := range methods {
		methods[i] = strings.TrimSpace(methods[i])
	}
	negated := strings.HasPrefix(methods[0], "!")
	if config.RequireAuth != "" && (negated && slices.Contains(methods, "!password") || !negated && !slices.Contains(methods, "password")) {
		return &ConfigError{Setting: "require_auth", Problem: "it forbids password, which is how a token is sent: use require_auth=password, or leave it out"}
	}
	return nil
}
