package doctor

import (
	"slices"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/settings"
)

// knownKeys are keys of a DSN that package entrapg accepts.
var knownKeys = slices.Concat(settings.Keys, []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "options", "search_path",
	"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_query_exec_mode",
	"statement_cache_capacity", "pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime",
	"pool_max_conn_idle_time", "pool_health_check_period", "fallback_application_name",
	"ssl_min_protocol_version", "ssl_max_protocol_version",
})
