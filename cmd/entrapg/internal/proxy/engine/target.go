package engine

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// validatePhysical returns a hook that replaces next for a client that replicates
// physically. next checks target_session_attrs with a query, which such a session cannot
// run. PostgreSQL 14 and newer report the same state at the login. With prefer-standby, the
// first server is used.
func validatePhysical(attrs string, next pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		recovery, readOnly := conn.ParameterStatus("in_hot_standby"), conn.ParameterStatus("default_transaction_read_only")
		if recovery == "" || readOnly == "" {
			return next(ctx, conn)
		}
		standby := recovery == "on"
		readOnlySession := standby || readOnly == "on"
		switch {
		case attrs == "primary" && standby:
			return pgconn.ErrStandbyConnection
		case attrs == "standby" && !standby:
			return pgconn.ErrPrimaryConnection
		case attrs == "read-write" && readOnlySession:
			return pgconn.ErrReadOnlyConnection
		case attrs == "read-only" && !readOnlySession:
			return pgconn.ErrReadWriteConnection
		}
		return nil
	}
}

// isPhysical reports whether the value of a client's parameter replication requests physical
// replication: any form of true that PostgreSQL accepts.
func isPhysical(replication string) bool {
	v := strings.ToLower(replication)
	return v == "1" || v == "on" || v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v))
}
