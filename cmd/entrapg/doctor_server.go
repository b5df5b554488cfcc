package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgfail"
)

func (d *diagnosis) logIn(ctx context.Context, f *finding) *trouble {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := d.login.Connect(ctx)
	if err != nil {
		return d.failed(err)
	}
	d.conn = conn.(*stdlib.Conn).Conn()
	f.note("as %s, in %s", d.token.User, milliseconds(time.Since(start)))
	return nil
}

// failed explains a login that failed.
func (d *diagnosis) failed(err error) *trouble {
	var config *entrapg.ConfigError
	if errors.As(err, &config) {
		return &trouble{Said: config.Setting + ": " + config.Problem, Means: "the connection is not safe for a token, so no token was sent"}
	}
	var login *entrapg.LoginError
	if errors.As(err, &login) {
		err = login.Err // without the hint, which is what it means
	}
	responses := pgfail.ServerErrors(err)
	t := &trouble{}
	for _, e := range responses {
		t.Said = words(e)
		if e.Severity == "FATAL" {
			break
		}
	}
	if t.Said == "" {
		t.Said = strings.TrimPrefix(err.Error(), "entrapg: ")
	}
	if login == nil {
		t.Means = "the connection broke in the middle of the login: by a firewall or a proxy in between, or because " +
			"the server ended. Try again; should it stay, look at the server's log"
		if isTimeout(err) {
			t.Means = "the server did not finish the login in time: it is overloaded, or it cannot reach Entra itself"
		}
		return t
	}
	t.Means = login.Hint
	t.Fix = d.fix(d.classify(err).Kind, t.Said)
	return t
}

// classify diagnoses pgx's error for this login, as package entrapg does.
func (d *diagnosis) classify(err error) pgfail.Diagnosis {
	login := pgfail.Login{
		User: d.token.User, Guest: d.claims.Guest(), Unnamed: d.token.Lookup != nil, Password: !d.login.Entra(),
	}
	for _, e := range d.endpoints {
		login.Hosts = append(login.Hosts, e.host)
	}
	return pgfail.Classify(err, login)
}

// words are a server's own.
func words(e *pgconn.PgError) string {
	text := fmt.Sprintf("%s: %s (SQLSTATE %s)", e.Severity, e.Message, e.Code)
	if e.Detail != "" {
		text += "\nDETAIL: " + e.Detail
	}
	if e.Hint != "" {
		text += "\nHINT: " + e.Hint
	}
	return text
}

// groupID matches the group that a message of Azure's server names.
var groupID = regexp.MustCompile(`(?i)group ID ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b`)

// asAdministrator goes before SQL that provisions roles.
const asAdministrator = "-- as an Entra administrator of the server, in the database postgres"

// fix returns what to type to fix a failed login. The lines contain the names of
// this login. Of the server's message, they contain at most the ID of a group.
func (d *diagnosis) fix(kind pgfail.Kind, message string) []string {
	user, oid := d.token.User, d.claims.Text("oid")
	server := serverName(d.login.Config.Host)
	typ := "service"
	if d.claims != nil && d.claims.Kind() == claims.Person {
		typ = "user"
	}
	label := fmt.Sprintf(`security label for "pgaadauth" on role %s is %s;`, identifier(user), literal("aadauth,oid="+oid+",type="+typ))
	switch kind {
	case pgfail.TokenExpired:
		return []string{"date -u", "sudo timedatectl set-ntp true"}
	case pgfail.WrongAudience:
		return d.fixScope([]string{"# shows the audience of the token", "entrapg whoami"})
	case pgfail.MalformedToken:
		return []string{"# past a proxy or PgBouncer, if there is one", "port=5432"}
	case pgfail.NotAToken:
		if !d.login.Azure {
			return []string{"# shows the token's tenant", "entrapg whoami"}
		}
		return []string{
			"# the token's tenant is " + shell(d.claims.Text("tid")) + "; the server's is",
			"az postgres flexible-server show --name " + server + " --resource-group " + resourceGroup(server) +
				" --query authConfig.tenantId --output tsv",
		}
	case pgfail.NoObjectID:
		return []string{"entrapg whoami"}
	case pgfail.UserTokenForService, pgfail.ServiceTokenForUser, pgfail.OtherPrincipal:
		var lines []string
		if d.login.Config.User != "" {
			lines = append(lines, "# in the DSN, to log in as whom the token is for: leave user out")
		}
		return append(lines, asAdministrator+", and only if this identity is to have the role: it takes it from whoever has it now", label)
	case pgfail.NotInGroup:
		group := "GROUP_ID"
		if match := groupID.FindStringSubmatch(message); match != nil {
			group = match[1]
		}
		return []string{
			"az ad group member check --group " + group + " --member-id " + shell(oid),
			"# and where that says true, for a token that knows it", "az logout && az login",
		}
	case pgfail.NoRole, pgfail.NotMapped:
		lines := []string{asAdministrator, "select * from pgaadauth_create_principal(" + literal(user) + ", false, false);"}
		if d.login.Config.User != "" && oid != "" {
			lines = append(lines, "-- or, where Entra has nobody of that name, for this token's identity",
				fmt.Sprintf("select * from pgaadauth_create_principal_with_oid(%s, %s, '%s', false, false);", literal(user), literal(oid), typ))
		}
		if kind == pgfail.NotMapped {
			lines = append(lines, "-- or, where the role exists already", label)
		}
		return lines
	case pgfail.OtherObjectID:
		return []string{
			asAdministrator + ", and only if this identity is to have the role. The first false is for a role that is no administrator",
			fmt.Sprintf("select * from pgaadauth_update_principal_with_oid(%s, %s, '%s', false, false);", literal(user), literal(oid), typ),
		}
	case pgfail.ServerSuffix:
		return []string{"# in the DSN", setting("user", user[:strings.LastIndexByte(user, '@')], "ROLE")}
	case pgfail.GuestName:
		return []string{
			asAdministrator + ": shows the names of the roles",
			"select * from pgaadauth_list_principals(false);",
		}
	case pgfail.UnnamedIdentity:
		return []string{"# in the DSN", "user=ROLE"}
	case pgfail.NoDatabase:
		return []string{"create database " + identifier(d.login.Config.Database) + " owner " + identifier(user) + ";"}
	case pgfail.NoConnectPrivilege:
		return []string{"grant connect on database " + identifier(d.login.Config.Database) + " to " + identifier(user) + ";"}
	case pgfail.ServerFull:
		return []string{"select usename, count(*) from pg_stat_activity group by 1 order by 2 desc;"}
	case pgfail.NoTLS:
		return []string{"# in the DSN", "sslmode=verify-full"}
	case pgfail.HostNotAllowed:
		if !d.login.Azure {
			return []string{"-- as a superuser; add a line for this user, database and address to that file", "show hba_file;"}
		}
		return firewall(server)
	case pgfail.PgBouncer:
		return []string{"# in the DSN", "port=5432"}
	default:
		return nil
	}
}

// fixScope returns what to type if the scope is wrong, or otherwise if it is
// that of the host's cloud. It never takes the scope of the server's message: a
// server could name a scope whose tokens open something else.
func (d *diagnosis) fixScope(otherwise []string) []string {
	if scope := d.tableScope(); scope != "" && scope != d.login.Scope {
		return []string{"# in the DSN", "entra_scope=" + scope}
	}
	return otherwise
}

// tableScope returns the scope of the hosts' cloud by package entrapg's table, or
// "" if a service file sets another.
func (d *diagnosis) tableScope() string {
	var hosts []string
	for _, e := range d.endpoints {
		hosts = append(hosts, e.host)
	}
	dsn := connstring.WithDefault("sslmode=verify-full entra_credential=default", "host", strings.Join(hosts, ","))
	cloud, err := inspect.Open(dsn)
	if err != nil {
		return ""
	}
	defer cloud.Close()
	if cloud.Settings.Value("entra_scope") != "" {
		return ""
	}
	return cloud.Scope
}

func (d *diagnosis) askServer(ctx context.Context, f *finding) *trouble {
	var version, user string
	var pid uint32
	err := d.conn.QueryRow(ctx, "select current_setting('server_version'), session_user::text, pg_backend_pid()",
		pgx.QueryExecModeSimpleProtocol).Scan(&version, &user, &pid)
	if err != nil {
		return &trouble{Said: err.Error(), Means: "the login worked, and the first query did not"}
	}
	encrypted := "plaintext"
	if conn, ok := d.conn.PgConn().Conn().(*tls.Conn); ok {
		encrypted = "encrypted with " + tls.VersionName(conn.ConnectionState().Version)
	}
	between := ""
	if d.conn.PgConn().PID() != pid {
		between = "; PgBouncer or another pooler is in between"
	}
	f.note("PostgreSQL %s, %s%s", version, encrypted, between)

	// Azure keeps the mapping in a security label, which everybody may read.
	var label string
	err = d.conn.QueryRow(ctx, `select label from pg_catalog.pg_shseclabel l join pg_catalog.pg_roles r on r.oid = l.objoid
		where l.classoid = 'pg_catalog.pg_authid'::regclass and l.provider = 'pgaadauth' and r.rolname = session_user`,
		pgx.QueryExecModeSimpleProtocol).Scan(&label)
	switch {
	case err == nil:
		f.note("%s is mapped to Entra: %s", user, label)
	case d.login.Azure && errors.Is(err, pgx.ErrNoRows):
		f.note("the server does not show what %s is mapped to", user)
	}
	return nil
}

func (d *diagnosis) compareClocks(ctx context.Context, f *finding) *trouble {
	const bearable = 2 * time.Minute
	var theirs time.Time
	start := time.Now()
	if err := d.conn.QueryRow(ctx, "select clock_timestamp()").Scan(&theirs); err != nil {
		f.warn(&trouble{Said: err.Error()})
		return nil
	}
	ours := start.Add(time.Since(start) / 2)
	ahead := ours.Sub(theirs).Round(time.Millisecond)
	switch {
	case ahead > bearable || ahead < -bearable:
		f.warn(&trouble{
			Said:  fmt.Sprintf("this machine's clock is %v off the server's", ahead.Abs()),
			Means: "tokens are judged by the clock: set it", Fix: []string{"sudo timedatectl set-ntp true"},
		})
	case ahead.Abs() < time.Second:
		f.note("less than a second off the server's")
	default:
		f.note("%v off the server's", ahead.Abs())
	}
	return nil
}
