package proxy

import "github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"

const description = "Listens on this machine, logs each client in to the server with a current token over verified TLS, and " +
	"relays the session. Clients use any PostgreSQL driver, without a token. The client sets the database and other " +
	"settings. The user is the DSN's or, by default, the token's; --client-user uses the client's.\n" +
	"Over TCP, clients log in with the proxy's own password. ENTRAPG_PROXY_PASSWORD or --password-file sets it. Otherwise a " +
	"password is generated and printed at the start. Unix sockets have mode 0600 and require no password.\n" +
	"An address is a port of 127.0.0.1, HOST:PORT, a directory for the Unix socket .s.PGSQL.5432, or the path of the " +
	"socket itself. libpq, and so psql, finds sockets whose name is .s.PGSQL.PORT. A name that ends in .sock is for clients " +
	"that take the path of a socket. @NAME is an abstract socket, which only Linux has and which requires the password. " +
	"Each flag can be set by its environment variable; several addresses are separated by newlines.\n" +
	"SIGTERM and Ctrl-C stop listening, let sessions end for --grace, then close them; a second signal closes them " +
	"at once. SIGHUP does the same if the proxy runs on a terminal, and otherwise reads the TLS certificate and " +
	"--password-file again.\n" +
	"https://github.com/entrapg/entrapg/blob/main/docs/proxy.md describes Kubernetes, Compose, systemd and common " +
	"clients.\n" + dsn.Help
