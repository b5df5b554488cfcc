package entrapg

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// This file contains the code that depends on pgx's internals. Check it with each new
// version of pgx.

// isParsed reports whether a configuration was created by ParseConfig, which a field
// that is not exported records. pgx panics when it connects with another one, so isParsed
// connects with hooks that do not dial. TestConfig_ExistingSettingThatIsUnsafeIsReported
// fails if pgx does not panic.
func isParsed(config *pgx.ConnConfig) (ok bool) {
	if config == nil || slices.Contains(config.Fallbacks, nil) {
		return false
	}
	defer func() { ok = recover() == nil }()
	probe := config.Copy()
	probe.Tracer = nil
	probe.LookupFunc = func(context.Context, string) ([]string, error) { return nil, errProbe }
	probe.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, errProbe }
	_, _ = pgx.ConnectConfig(context.Background(), probe)
	return true
}

var errProbe = errors.New("not dialed")

// isParsedPool is like isParsed for pgxpool, which panics when it creates a pool.
func isParsedPool(config *pgxpool.Config) (ok bool) {
	if config == nil || !isParsed(config.ConnConfig) {
		return false
	}
	defer func() { ok = recover() == nil }()
	probe := config.Copy()
	probe.MinConns, probe.MinIdleConns = 0, 0
	probe.ConnConfig.Tracer = nil
	if pool, err := pgxpool.NewWithConfig(context.Background(), probe); err == nil {
		pool.Close()
	}
	return true
}

// isCancelRequest reports whether pgx is dialing for a cancel request. Only the call
// stack distinguishes it: pgx dials the next host with the same function, and possibly
// the same address, on another goroutine. TestLogin_BrokenLoginsDialNoSecondConnection
// fails if pgx renames its method.
func isCancelRequest() bool {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "pgconn.(*PgConn).CancelRequest") {
			return true
		}
		if !more {
			return false
		}
	}
}

// codeOf returns the code of a function. Functions cannot be compared, but their code
// can if the function that creates them is not inlined.
func codeOf(f any) uintptr { return reflect.ValueOf(f).Pointer() }

// isRequireLogin reports whether requireLogin created a hook, which remains in copies of
// a pool's configuration. TestPool_SecondConfigurePoolIsConfigError fails if the code
// differs.
func isRequireLogin(hook afterNetConnect) bool {
	return codeOf(hook) == codeOf(requireLogin(nil))
}

// isPolicyFunc reports whether verifyingConfig created a VerifyConnection. pgx and hooks
// copy the TLS configuration that contains it.
// TestTLS_AliasOfAzureServerWorksUnderRequire fails if the code differs.
func isPolicyFunc(verify func(tls.ConnectionState) error) bool { return codeOf(verify) == policyCode }

var policyCode = codeOf(tlsPolicy{sslmode: "require"}.verifyingConfig("localhost", new(tls.Config)).VerifyConnection)

// detailsOf returns the details of the login whose configuration is in pgx's error. This
// package does not see an error that pgxpool returns to the program, and only the hooks
// in the configuration refer to the login. TestExplain_RecognizesGuests fails if the
// configuration in the error has another DialFunc.
func detailsOf(config *pgconn.Config) loginDetails {
	var details loginDetails
	if config == nil || codeOf(config.DialFunc) != codeOf((*login)(nil).dial) {
		return details
	}
	_, _ = config.DialFunc(context.WithValue(context.Background(), loginDetailsKey{}, &details), "", "")
	return details
}

// A loginDetailsKey is the key of the context value through which detailsOf gets the
// details from a login.
type loginDetailsKey struct{}
