package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/spelling"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// serverSteps log in and query the server.
type serverSteps struct{ *state }

// loginLimit bounds the doctor's login. The server may have to contact Entra.
const loginLimit = 30 * time.Second

func (s serverSteps) logIn(ctx context.Context, f *finding) *problem {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	conn, err := s.login.Connect(limited)
	if err != nil {
		return s.failed(ctx, err)
	}
	s.conn = conn.(*stdlib.Conn).Conn()
	f.note("as %s, in %s", s.user(), terminal.Milliseconds(time.Since(start)))
	return nil
}

// failed explains a login that failed.
func (s serverSteps) failed(ctx context.Context, err error) *problem {
	var config *entrapg.ConfigError
	if errors.As(err, &config) {
		return &problem{
			Error:       strings.TrimPrefix(config.Error(), "entrapg: "),
			Explanation: "the connection is not safe for a token, so no token was sent",
			Fix:         fixes(s).set("sslmode", "verify-full"),
		}
	}
	var login *entrapg.LoginError
	switch kind := inspect.KindOf(err); {
	case kind == pgfail.NoSuitableHost:
		return s.unsuitable(err)
	case errors.As(err, &login):
		return s.rejected(ctx, login, kind)
	}
	p := &problem{Error: words(err), Fix: s.isReady()}
	p.Explanation = "the connection broke during the login: a firewall or a proxy in between closed it, or the server " +
		"stopped; try again, and look at the server's log"
	if isTimeout(err) {
		p.Explanation = fmt.Sprintf(
			"the server did not complete the login within %v: it is overloaded, or it cannot reach Entra", loginLimit)
	}
	return p
}

// rejected explains a login that failed because of the given cause.
func (s serverSteps) rejected(ctx context.Context, login *entrapg.LoginError, kind pgfail.Kind) *problem {
	p := &problem{Error: words(login.Err), Explanation: login.Hint}
	if kind.AboutRole() && s.login.Entra() {
		roleFix{fixes(s), kind}.explain(ctx, p)
		if kind == pgfail.NotMapped {
			p.Explanation += s.perhapsProxy()
		}
		return p
	}
	p.Fix = s.fix(kind, login.Err)
	switch kind {
	case pgfail.NoDatabase:
		p.Explanation = s.missingDatabase(ctx)
	case pgfail.WrongPassword:
		p.Explanation += s.passwordOrigin()
	case pgfail.NoAuthentication:
		p.Explanation += s.perhapsProxy()
	}
	return p
}

// words returns the text of the error response that ended a login, or of err if there is
// none.
func words(err error) string {
	text := strings.TrimPrefix(err.Error(), "entrapg: ")
	for _, e := range pgfail.ServerErrors(err) {
		text = fmt.Sprintf("%s: %s (SQLSTATE %s)", e.Severity, e.Message, e.Code)
		if e.Detail != "" {
			text += "\nDETAIL: " + e.Detail
		}
		if e.Hint != "" {
			text += "\nHINT: " + e.Hint
		}
		if e.Severity == "FATAL" {
			break
		}
	}
	return text
}

// fix returns the lines that fix a failed login, for causes other than the role.
func (s serverSteps) fix(kind pgfail.Kind, err error) []string {
	fix, server := fixes(s), serverName(s.login.Config.Host)
	whoami := []string{"# shows the audience and the tenant of the token", fix.commandLine("whoami")}
	switch kind {
	case pgfail.TokenExpired:
		return []string{"date -u", setClock()}
	case pgfail.WrongAudience:
		return fix.scope(whoami...)
	case pgfail.MalformedToken, pgfail.PgBouncer:
		return fix.set("port", "5432")
	case pgfail.NotAToken:
		if !s.login.Azure {
			return whoami
		}
		return []string{
			quote.Comment("# the tenant of the token is " + s.claims.Text("tid") + ". This shows the one of the server"),
			"az postgres flexible-server show --name " + server + " --resource-group " + resourceGroup(server) +
				" --query authConfig.tenantId --output tsv",
		}
	case pgfail.NoObjectID:
		return whoami
	case pgfail.WrongPassword:
		return fix.set("password", "PASSWORD")
	case pgfail.NoAuthentication:
		return fix.set("entra_credential", "none")
	case pgfail.NoDatabase:
		return s.createDatabase()
	case pgfail.NoConnectPrivilege:
		return []string{
			asOwner,
			"grant connect on database " + quote.Identifier(s.database()) + " to " + quote.Identifier(s.user()) + ";",
		}
	case pgfail.ServerFull:
		return []string{
			"-- as an Entra administrator of the server: shows who has the connections",
			"select usename, count(*) from pg_stat_activity group by 1 order by 2 desc;",
		}
	case pgfail.RoleFull:
		return []string{asAdministrator, "alter role " + quote.Identifier(s.user()) + " connection limit -1;"}
	case pgfail.DatabaseFull:
		return []string{asOwner, "alter database " + quote.Identifier(s.database()) + " connection limit -1;"}
	case pgfail.DatabaseClosed:
		return []string{asOwner, "alter database " + quote.Identifier(s.database()) + " allow_connections true;"}
	case pgfail.NoLogin:
		return []string{asAdministrator, "alter role " + quote.Identifier(s.user()) + " login;"}
	case pgfail.NoTLS:
		return fix.set("sslmode", "verify-full")
	case pgfail.HostNotAllowed:
		if !s.login.Azure {
			return []string{
				"-- as a superuser; add a line for this user, database and address to that file, and reload",
				"show hba_file;",
			}
		}
		return fix.firewall(server)
	case pgfail.UnknownParameter, pgfail.InvalidParameter:
		return s.fixParameter(kind, err)
	case pgfail.NotReady:
		return s.isReady()
	case pgfail.TransactionPooling:
		return fix.set("default_query_exec_mode", "exec")
	default:
		return []string{
			"-- as an Entra administrator or a superuser: shows whether the role can log in",
			"select rolname, rolcanlogin, rolconnlimit, rolvaliduntil from pg_roles where rolname = " + quote.Literal(s.user()) + ";",
		}
	}
}

// asOwner is the comment before SQL that changes a database.
const asOwner = "-- as the owner of the database, or as an Entra administrator of the server"

// isReady returns the lines that show the state of the servers.
func (s serverSteps) isReady() []string {
	lines := []string{"# shows whether the server accepts connections"}
	for _, e := range s.endpoints {
		lines = append(lines, e.isReady())
	}
	return lines
}

// fixParameter returns the lines that remove or rename the parameter that the server does not know or
// whose value it rejects. The server's message only selects a key of the DSN, and is not shown.
func (s serverSteps) fixParameter(kind pgfail.Kind, err error) []string {
	for _, response := range pgfail.ServerErrors(err) {
		message := strings.ToLower(response.Message) // servers write TimeZone
		for _, key := range slices.Sorted(maps.Keys(s.settings())) {
			name := strings.ToLower(key)
			if !strings.Contains(message, `"`+name+`"`) && !strings.HasSuffix(message, ": "+name) {
				continue
			}
			if kind == pgfail.InvalidParameter {
				return fixes(s).drop(key)
			}
			return fixes(s).replace(key, spelling.Closest(name, knownKeys, ""))
		}
	}
	return fixes(s).drop("options")
}

// attempted matches the address and the host of an attempt in pgx's error.
var attempted = regexp.MustCompile(`(?m)(\S+ \(\S+\)): [^` + "`" + `]*$`)

// unsuitable explains that target_session_attrs rejects the hosts.
func (s serverSteps) unsuitable(err error) *problem {
	var attempts *pgconn.ConnectError
	if errors.As(err, &attempts) { // without the hint
		err = attempts
	}
	var hosts []string
	for _, attempt := range pgfail.Attempts(err) {
		outcome := "cannot be reached"
		switch role := pgfail.Session(attempt); {
		case role != "":
			outcome = "is " + role
		case len(pgfail.ServerErrors(attempt)) > 0:
			outcome = "rejects the login"
		}
		if host := attempted.FindStringSubmatch(attempt.Error()); host != nil {
			hosts = append(hosts, host[1]+" "+outcome)
		}
	}
	return &problem{
		Error: err.Error(),
		Explanation: fmt.Sprintf("the login works, but %s; target_session_attrs is %s, from %s. Add the host that you need, or accept any",
			strings.Join(hosts, ", "), s.login.Settings.Value("target_session_attrs"), s.origin("target_session_attrs")),
		Fix: fixes(s).set("target_session_attrs", "any"),
	}
}

// passwordOrigin describes the origin of the password.
func (s serverSteps) passwordOrigin() string {
	settings := s.settings()
	switch origin := settings["password"].Origin; {
	case origin == connstring.OriginDSN:
		return "; the password is that of " + s.origin("password")
	case origin != "":
		return "; the password is that of " + origin
	case s.token.Value == "":
		return "; no password is set in the DSN, PGPASSWORD or a password file"
	case settings.Value("passfile") == "":
		return "; the password is that of ~/.pgpass"
	default:
		return "; the password is that of " + settings.Value("passfile") + ", from " + s.origin("passfile")
	}
}

// createDatabase returns the lines that create the database, or set another one.
func (s serverSteps) createDatabase() []string {
	if s.login.Config.Database == "" {
		return append([]string{"# set the database; postgres exists on every server"}, fixes(s).set("dbname", "postgres")...)
	}
	grant := "grant " + quote.Identifier(s.user()) + " to current_user;"
	if !s.login.Entra() {
		grant = "-- if you are not a superuser, first: " + grant
	}
	return []string{
		asAdministrator + "; the first statement lets you make the role an owner",
		grant,
		"create database " + quote.Identifier(s.database()) + " owner " + quote.Identifier(s.user()) + ";",
	}
}

// missingDatabase explains that the database does not exist, and lists those that do.
func (s serverSteps) missingDatabase(ctx context.Context) string {
	var hint string
	if s.login.Config.Database == "" {
		hint = fmt.Sprintf("the login works, but no database is set, and the server has none with the user's name, %q; "+
			"set dbname in the DSN", s.user())
	} else {
		hint = fmt.Sprintf("the login works, but the database %q, from %s, does not exist; create it, or set the name of "+
			"another one: names are case-sensitive", s.login.Config.Database, s.origin("dbname"))
	}
	var names []string
	if err := s.probe(ctx, "dbname", "postgres", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "select datname::text from pg_catalog.pg_database where datallowconn and not datistemplate "+
			"and pg_catalog.has_database_privilege(datname, 'connect') order by 1 limit 20", pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return err
	}); err == nil && len(names) > 0 {
		hint += ". The server has " + strings.Join(names, ", ")
	}
	return hint
}

func (s serverSteps) describe(ctx context.Context, f *finding) *problem {
	var version, user string
	var pid uint32
	err := s.conn.QueryRow(ctx, "select current_setting('server_version'), session_user::text, pg_backend_pid()",
		pgx.QueryExecModeSimpleProtocol).Scan(&version, &user, &pid)
	if err != nil {
		return &problem{
			Error: err.Error(), Explanation: "the login works, but the first query fails",
			Fix: []string{
				"# repeats the login and a query with another program",
				fixes(s).commandLine("exec") + " -- psql -Xc 'select version()'",
			},
		}
	}
	encrypted := "plaintext"
	if conn, ok := s.conn.PgConn().Conn().(*tls.Conn); ok {
		encrypted = "encrypted with " + tls.VersionName(conn.ConnectionState().Version)
	}
	between := ""
	if s.conn.PgConn().PID() != pid {
		between = "; PgBouncer or another pooler is in between"
	}
	f.note("PostgreSQL %s, %s%s", version, encrypted, between)

	// Azure keeps the mapping in a security label, which every role may read.
	var label string
	err = s.conn.QueryRow(ctx, `select label from pg_catalog.pg_shseclabel l join pg_catalog.pg_roles r on r.oid = l.objoid
		where l.classoid = 'pg_catalog.pg_authid'::regclass and l.provider = 'pgaadauth' and r.rolname = session_user`,
		pgx.QueryExecModeSimpleProtocol).Scan(&label)
	switch {
	case err == nil:
		f.note("%s is mapped to Entra: %s", user, label)
	case s.login.Azure && errors.Is(err, pgx.ErrNoRows):
		f.note("the server does not show the mapping of %s", user)
	}
	return nil
}

func (s serverSteps) compareClocks(ctx context.Context, f *finding) *problem {
	const tolerated = 2 * time.Minute
	var theirs time.Time
	start := time.Now()
	if err := s.conn.QueryRow(ctx, "select clock_timestamp()").Scan(&theirs); err != nil {
		f.warn(&problem{Error: err.Error()})
		return nil
	}
	ours := start.Add(time.Since(start) / 2)
	ahead := ours.Sub(theirs).Round(time.Millisecond)
	switch {
	case ahead > tolerated || ahead < -tolerated:
		f.warn(&problem{
			Error:       fmt.Sprintf("this machine's clock differs from the server's by %v", ahead.Abs()),
			Explanation: "servers reject tokens that have expired by their clock; set this machine's clock", Fix: []string{setClock()},
		})
	case ahead.Abs() < time.Second:
		f.note("differs from the server's by less than a second")
	default:
		f.note("differs from the server's by %v", ahead.Abs())
	}
	return nil
}
