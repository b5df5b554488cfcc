package entrapg

import (
	"log/slog"
	"reflect"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Option changes how [NewConnector] and [PoolConfig] log in. A nil Option
// changes nothing; of two that set the same thing, the later one wins.
type Option func(*options) error

type options struct {
	credential azcore.TokenCredential // nil: what the DSN chooses
	scope      string
	logger     *slog.Logger
	adjust     []func(*pgx.ConnConfig)
	stdlib     []stdlib.OptionOpenDB
}

func collect(opts []Option) (*options, error) {
	o := &options{logger: slog.Default()}
	for _, opt := range opts {
		if opt == nil {
			continue
		}
		if err := opt(o); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// WithCredential takes the tokens from credential instead of
// azidentity.DefaultAzureCredential. Any credential of azidentity will do, and
// so will an implementation of your own that is safe for concurrent use; it
// need not cache, because its tokens are kept here, and shared by all who are
// given the same credential. Credentials are the same if they are equal (==);
// what cannot be compared is shared with nobody. A nil credential is a
// [ConfigError], and so is one beside a DSN with an entra_ key other than
// entra_scope.
func WithCredential(credential azcore.TokenCredential) Option {
	return func(o *options) error {
		v := reflect.ValueOf(credential)
		if !v.IsValid() || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
			return &ConfigError{Setting: "WithCredential", Problem: "the credential is nil: check the error of the function that made it, or leave the option out for DefaultAzureCredential"}
		}
		o.credential = credential
		return nil
	}
}

// WithScope asks for tokens of this scope, passed on as it is, instead of the
// one that belongs to the host's Azure cloud. A scope is a resource followed by
// "/.default", such as "https://ossrdbms-aad.database.windows.net/.default".
// The DSN's entra_scope does the same; two that differ are a [ConfigError]. With
// entra_credential=none it means nothing.
func WithScope(scope string) Option {
	return func(o *options) error {
		if strings.TrimSpace(scope) == "" {
			return &ConfigError{Setting: "WithScope", Problem: "the scope is empty: leave the option out for the scope of the host's cloud"}
		}
		o.scope = scope
		return nil
	}
}

// WithLogger sends the few records that a connector writes to logger instead of
// [slog.Default]. They are warnings of what no caller sees as an error: a token
// that could not be replaced while the old one serves, a refused login that is
// tried again, a user's name that could not be looked up; and, for debugging, a
// record of each new token. Of connectors that share a credential, the one whose
// Connect started a request for a token writes what becomes of it. No record ever
// holds a token. A nil logger means silence.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) error {
		if logger == nil {
			logger = slog.New(slog.DiscardHandler)
		}
		o.logger = logger
		return nil
	}
}

// WithConnConfig hands the parsed configuration to adjust, once, when the
// connector or pool configuration is made: for a tracer, an exec mode, a
// dialer, TLS roots, a hook. Several of them run in the order given.
//
// User is empty there unless the DSN, a service file or PGUSER names one; set
// it to log in as that user. Setting Password is a [ConfigError]. The rules for
// TLS are applied afterwards: see "TLS" in the package documentation.
func WithConnConfig(adjust func(*pgx.ConnConfig)) Option {
	return func(o *options) error {
		if adjust == nil {
			return &ConfigError{Setting: "WithConnConfig", Problem: "the function is nil"}
		}
		o.adjust = append(o.adjust, adjust)
		return nil
	}
}

// WithStdlib passes on options of pgx's database/sql driver, so that its own
// hooks are in reach:
//
//	entrapg.WithStdlib(stdlib.OptionAfterConnect(registerTypes))
//
// [stdlib.OptionAfterConnect], [stdlib.OptionResetSession] and
// [stdlib.OptionShouldPing] do what pgx documents, except that a connection
// whose AfterConnect hook fails is closed. [stdlib.OptionBeforeConnect] runs
// after the rules for TLS and could break them, and shares maps and slices with
// other attempts: use it for nothing but [stdlib.RandomizeHostOrderFunc] and the
// like. They mean nothing to a pgxpool,
// so [PoolConfig] reports a [ConfigError]; set the hooks of the
// [pgxpool.Config] it returns instead.
func WithStdlib(opts ...stdlib.OptionOpenDB) Option {
	return func(o *options) error {
		for _, opt := range opts {
			if opt == nil {
				return &ConfigError{Setting: "WithStdlib", Problem: "an option is nil"}
			}
		}
		o.stdlib = append(o.stdlib, opts...)
		return nil
	}
}
