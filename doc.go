// Package entrapg logs database/sql programs in to Azure Database for PostgreSQL
// with Microsoft Entra ID:
//
//	db := sql.OpenDB(entrapg.NewConnector("postgres://myserver.postgres.database.azure.com/mydb"))
//
// Each new connection authenticates with a current access token. The first
// connection requests the token, all connections share it, and it is refreshed in
// the background before it expires. Connections are pgx's [*stdlib.Conn].
//
// For pgxpool, use [PoolConfig]. Tools that take a driver name and a DSN use
// sql.Open("entrapg", dsn).
//
// # Connection string
//
// A DSN is a postgres:// URL or key=value settings, as [pgconn.ParseConfig]
// accepts, with several hosts, service files and PG* variables. entrapg handles
// these additional keys and does not send them to the server:
//
//   - entra_credential: default, environment, workloadidentity, managedidentity,
//     azurecli, azuredevelopercli or azurepowershell, or the name of azidentity's
//     type, in any case. none, for a local server, logs in with a PostgreSQL
//     password and never requests a token.
//   - entra_client_id: the managed or workload identity to use.
//   - entra_tenant_id: the tenant, except for environment and managedidentity.
//   - entra_scope: the scope to request tokens for. The default depends on the
//     cloud of the host, or on AZURE_AUTHORITY_HOST for a host outside Azure.
//
// hostaddr is dialed instead of the address of host, by whose name the server is
// verified, as in libpq. Of libpq's other settings that pgx does not know,
// keepalives, ssl_min_protocol_version and fallback_application_name are honored,
// and those that would change something else are a [ConfigError]. White space
// around a URL is ignored. An error about a setting that is not in the DSN names
// the variable or the service file in which it is.
//
// Without entra_credential and [WithCredential], the credential is
// azidentity.DefaultAzureCredential. It is created when the first token is
// requested.
//
// The PostgreSQL user is that of the DSN, of its service file or of PGUSER. If
// none is set, it is derived from the token: the name of a managed identity, a
// person's user principal name, or a service principal's display name. It is
// never the operating system's user. Guests and members of a group who log in as
// the group must set the user.
//
// A password in the DSN is an error, and PGPASSWORD and password files are
// ignored, except with entra_credential=none. The default of connect_timeout is 30
// seconds; connect_timeout=0 means no limit.
//
// # TLS
//
// The token is a password that is valid for up to a day. It is sent only to a
// server that is verified, and only if the server requests a cleartext password
// or OAUTHBEARER:
//
//   - With sslmode=verify-full, or without sslmode, the certificate must be for the
//     host, or for the TLSConfig.ServerName that the program sets. The ServerName
//     of an Azure host must be an Azure name.
//   - With verify-ca, the certificate of an Azure host must be for any server of
//     Azure Database for PostgreSQL in the same cloud, as needed for private DNS
//     names and virtual endpoints.
//   - With require, an Azure host is verified as with verify-full.
//   - With require or verify-ca, another host's certificate must chain to
//     sslrootcert. Without sslrootcert, it must chain to the system's roots and be
//     for the host or for an Azure name, so that a CNAME of an Azure server works.
//   - With disable, plaintext is allowed to loopback addresses and Unix sockets.
//     Everything else that could send the token in plaintext, such as prefer and
//     allow, is a [ConfigError].
//
// The rules are checked when the configuration is read, and again once a
// connection is established. With entra_credential=none, sslmode means what it
// means in pgx, except that Azure hosts are always verified.
//
// # Security
//
// pgx never has the token: it logs in with an empty password, which is replaced
// by the token on its way to the server. Errors, log records, hooks, tracers and
// open connections do not contain it, even if a server repeats it. With
// entra_credential=none, pgx's configuration contains the password.
//
// # Errors
//
// Connect, and so the first query or Ping, returns a [ConfigError], [TokenError],
// [UsernameError] or [LoginError]; errors.As also finds the cause. An
// unreachable server is pgx's *pgconn.ConnectError. If a server rejects a cached
// token, Connect retries once with another token, if the credential has one.
//
// TokenError and LoginError have a Hint: what the error means on Azure, and what
// to do. [Explain] returns the same for any error, including those of pgxpool,
// which returns pgx's errors of a login, and "" if nothing is known.
package entrapg
