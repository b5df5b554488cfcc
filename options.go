package entrapg

import (
	"log/slog"
	"reflect"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// An Option configures [NewConnector], [NewConnectorWithConfig], [PoolConfig] or
// [ConfigurePool]. A nil Option changes nothing. If two options set the same value,
// the later one applies. The functions of all [WithConnConfig] and [WithStdlib]
// options apply, in order.
type Option func(*options) error

type options struct {
	credential azcore.TokenCredential // nil if the DSN selects one
	scope      string
	logger     *slog.Logger
	adjust     []func(*pgx.ConnConfig)
	stdlib     []stdlib.OptionOpenDB
}

// collect applies options to the defaults.
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

// WithCredential sets the credential. The default is azidentity.DefaultAzureCredential.
// Any credential of azidentity works, and so does your own implementation if it is safe
// for concurrent use. It need not cache tokens. Connectors and pools with equal
// credentials (==) and the same scope share their tokens. A credential that is not
// comparable is not shared.
//
// A nil credential is a [ConfigError]. So is a DSN that sets an entra_ key other
// than entra_scope.
func WithCredential(credential azcore.TokenCredential) Option {
	return func(o *options) error {
		v := reflect.ValueOf(credential)
		if !v.IsValid() || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
			return &ConfigError{
				Setting: "WithCredential",
				Problem: "the credential is nil; check the error of the function that created it, or omit the option",
			}
		}
		o.credential = credential
		return nil
	}
}

// WithScope sets the scope of the tokens, for example
// "https://ossrdbms-aad.database.windows.net/.default". The credential gets it
// unchanged. Without this option and entra_scope, the hosts' cloud determines the
// scope. An empty scope is a [ConfigError], and so is one that differs from
// entra_scope. The option is not used with entra_credential=none.
func WithScope(scope string) Option {
	return func(o *options) error {
		if strings.TrimSpace(scope) == "" {
			return &ConfigError{
				Setting: "WithScope",
				Problem: "the scope must not be empty; omit the option to use the scope of the host's cloud",
			}
		}
		o.scope = scope
		return nil
	}
}

// WithLogger sets the logger. The default is [slog.Default]. A connector logs
// warnings about failures that it does not return as an error: a token that could
// not be refreshed while the current one remains in use, a rejected login that is
// retried, and a user that could not be looked up. At the debug level, it logs each
// new token's expiry. If connectors share a credential, the one whose Connect
// started a token request logs its outcome. No record contains a token. Warnings
// of a login are logged on another goroutine, and are dropped while the handler
// blocks. A nil logger discards all records.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) error {
		if logger == nil {
			logger = slog.New(slog.DiscardHandler)
		}
		o.logger = logger
		return nil
	}
}

// WithConnConfig calls adjust with the parsed configuration once, when the
// connector or the pool configuration is created, for example to set a tracer,
// an exec mode, a dialer, TLS roots or a hook. Several functions run in the order
// of the options.
//
// User is empty unless the DSN, a service file or PGUSER sets it; adjust may set
// it. Setting Password is a [ConfigError]. TLSConfig.ServerName is empty; adjust
// may set the name to verify. With several hosts, adjust must also change the
// TLSConfig of each of Fallbacks; to set roots, sslrootcert is simpler. The rules
// for TLS are applied after adjust: see "Security" in the package documentation.
func WithConnConfig(adjust func(*pgx.ConnConfig)) Option {
	return func(o *options) error {
		if adjust == nil {
			return &ConfigError{Setting: "WithConnConfig", Problem: "the function is nil"}
		}
		o.adjust = append(o.adjust, adjust)
		return nil
	}
}

// WithStdlib passes options to pgx's database/sql driver, for example to set one
// of its hooks:
//
//	entrapg.WithStdlib(stdlib.OptionAfterConnect(registerTypes))
//
// The options do what pgx documents, except that a connection whose AfterConnect
// hook fails is closed. A BeforeConnect hook runs for each attempt: twice if a login
// is retried. It gets a shallow copy of the configuration, and must not change the
// contents of maps and slices. It may reorder the hosts, as
// [stdlib.RandomizeHostOrderFunc] does. If it makes the configuration unsafe for a
// token, Connect returns a [ConfigError] and sends no token. [PoolConfig] returns
// a ConfigError for this option; set the hooks of the [pgxpool.Config] instead.
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
