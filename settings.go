package entrapg

import (
	"cmp"
	"net"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/claims"
)

// settings are what a DSN and options come to: all that a login needs.
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
		return nil, &ConfigError{Setting: "WithConnConfig", Problem: "it sets Password, which is for the token: leave it alone; a password of PostgreSQL's own belongs in the DSN, beside entra_credential=none"}
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
	if err := rules.apply(&config.Config); err != nil {
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
	if scope := cmp.Or(target.entra[keyScope], o.scope); scope != "" {
		key.scope = scope
	}
	credential := choice.lazy(new(net.Dialer).DialContext)
	switch {
	case o.credential != nil:
		credential = given(o.credential)
		if reflect.ValueOf(o.credential).Comparable() {
			key.credential = o.credential
		}
	case shared:
		key.credential = choice
	}
	s.account = sources.openAccount(key, credential, strings.Join(addresses(&config.Config), ","), o.logger)
	return s, nil
}
