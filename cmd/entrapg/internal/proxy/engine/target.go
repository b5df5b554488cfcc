package engine

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// validatePhysical returns what replaces next, which checks target_session_attrs, for a client
// that replicates physically. next queries the server, which such a session cannot. A server
// of PostgreSQL 14 or newer reports its state at the login. Of the servers of prefer-standby,
// the first one is used.
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
