package entrapg

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/claims"
)

// settings are what a DSN and options come to: all that a login needs. They
// never change once made.
type settings struct {
	config  *pgx.ConnConfig // secured; without password, and without user where it is derived
	said    map[string]string
	rules   transportRules
	account *account
	stdlib  []stdlib.OptionOpenDB
}

// newSettings puts a DSN and options together. Parse is pgx's or pgxpool's.
func newSettings(sources *tokenSources, dsn string, opts []Option, shared bool, parse func(string) (*pgx.ConnConfig, error)) (*settings, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	target, err := parseDSN(dsn, parse)
	if err != nil {
		return nil, err
	}
	config, rules := target.config, transportRules{sslmode: target.sslmode, password: target.credential == noneKind}
	password := config.Password
	for _, adjust := range o.adjust {
		adjust(config)
	}
	if config.DialFunc == nil || config.LookupFunc == nil || config.BuildFrontend == nil || slices.Contains(config.Fallbacks, nil) {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it removes what pgx cannot do without: DialFunc, LookupFunc, BuildFrontend or a fallback is nil"}
	}
	if config.Password != password {
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it sets Password, which is for the token: leave it alone"}
	}
	config.Password = ""
	switch {
	case config.User != "":
		if err := claims.UsableName(config.User); err != nil {
			return nil, &UsernameError{Problem: "the one that is set cannot be a role's name", Err: err}
		}
	case rules.password:
		return nil, &UsernameError{Problem: "entra_credential=none has no token to derive it from"}
	}
	if !rules.password {
		if err := cleartextAllowed(&config.Config); err != nil {
			return nil, err
		}
	}
	if err := rules.secure(&config.Config); err != nil {
		return nil, err
	}
	azure, err := commonCloud(hosts(&config.Config))
	if err != nil {
		return nil, err
	}
	choice, err := target.choose(o, azure)
	if err != nil {
		return nil, err
	}

	s := &settings{config: config, said: target.said, rules: rules, stdlib: o.stdlib}
	if rules.password {
		s.account = passwordAccount(password)
		return s, nil
	}
	key := sourceKey{scope: azure.scope, management: azure.management}
	if scope := cmp.Or(target.own[keyScope], o.scope); scope != "" {
		key.scope = scope
	}
	credential := choice.lazy()
	switch {
	case o.credential != nil:
		credential = given(o.credential)
		if reflect.ValueOf(o.credential).Comparable() {
			key.credential = o.credential
		}
	case shared:
		key.credential = choice
	}
	s.account = sources.openAccount(key, credential, o.logger)
	return s, nil
}

// choose puts together what the DSN and the options say about the credential.
func (t *target) choose(o *options, azure *azureCloud) (credentialChoice, error) {
	choice := credentialChoice{kind: cmp.Or(t.credential, defaultKind), clientID: t.own[keyClientID], tenantID: t.own[keyTenantID], cloud: azure}
	for _, key := range slices.Sorted(maps.Keys(t.own)) {
		switch {
		case key == keyScope && o.scope != "" && t.own[key] != o.scope:
			return choice, &ConfigError{Setting: key, Problem: "the DSN and WithScope name different scopes: keep one"}
		case key != keyScope && o.credential != nil:
			return choice, &ConfigError{Setting: key, Problem: "the program gives a credential of its own by WithCredential, which the DSN cannot choose or change: keep one"}
		}
		if err := choice.kind.check(key, t.own[key]); err != nil {
			return choice, err
		}
	}
	return choice, nil
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
