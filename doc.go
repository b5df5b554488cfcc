// Package entrapg lets Go programs that use database/sql log in to Azure Database
// for PostgreSQL with Microsoft Entra ID:
//
//	db := sql.OpenDB(entrapg.NewConnector("postgres://myserver.postgres.database.azure.com/mydb"))
//
// Each new connection authenticates with a current access token, which all
// connections share and which is refreshed before it expires. For pgxpool, use
// [PoolConfig]; for an existing configuration, [NewConnectorWithConfig] or
// [ConfigurePool]; for tools that take a driver name, sql.Open("entrapg", dsn).
//
// # Connection string
//
// A DSN is a connection string that [pgconn.ParseConfig] accepts, including service
// files and PG* variables. These additional keys are not sent to the server:
//
//   - entra_credential: default, environment, workloadidentity, managedidentity,
//     azurecli, azuredevelopercli, azurepowershell, or the name of azidentity's
//     type. none logs in to a local server with a PostgreSQL password.
//   - entra_client_id: the managed or workload identity to use.
//   - entra_tenant_id: the tenant, except for environment and managedidentity.
//   - entra_scope: the scope of the tokens. The default depends on the host's cloud.
//
// The user comes from the DSN, its service file or PGUSER; otherwise it is derived
// from the token. It is never the operating system's user. Guests, and members of a
// group who log in as the group, must set it. A password in the DSN is an error, and
// those of PGPASSWORD, service files and password files are ignored, except with
// entra_credential=none. The default of connect_timeout is 30 seconds.
//
// # Security
//
// The token is a password that is valid for up to a day. It is sent only to a server
// that requests a cleartext password or OAUTHBEARER, and only over verified TLS or,
// with sslmode=disable, to a server on the same machine:
//
//   - verify-full, the default, verifies the host's name, or the
//     TLSConfig.ServerName that the program sets.
//   - verify-ca accepts, for an Azure host, a certificate of any server in the same
//     cloud. require verifies an Azure host as verify-full does.
//   - For other hosts, require and verify-ca verify the chain to sslrootcert.
//     Without sslrootcert, the certificate must be for the host or an Azure server.
//   - disable is for loopback addresses and Unix sockets. prefer and allow are errors.
//
// pgx logs in with an empty password, which is replaced by the token on its way to
// the server. Errors, logs, hooks, tracers and open connections do not contain the
// token, even if a server repeats it before it accepts the login.
//
// # Errors
//
// Connect, and so the first query or Ping, returns a [ConfigError], [TokenError],
// [UsernameError] or [LoginError], or pgx's *pgconn.ConnectError if no server can be
// reached. [Explain] returns what an error means on Azure and what to do, including
// errors of pgxpool. If a server rejects a cached token, the login is retried once
// with another one.
package entrapg
