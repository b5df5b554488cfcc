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
	"github.com/entrapg/entrapg/internal/refusal"
)

func (d *diagnosis) logIn(ctx context.Context, f *finding) *trouble {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := d.login.Connect(ctx)
	if err != nil {
		return d.refused(err)
	}
	d.conn = conn.(*stdlib.Conn).Conn()
	f.note("as %s, in %s", d.token.User, milliseconds(time.Since(start)))
	return nil
}

// refused explains a login that came to nothing.
func (d *diagnosis) refused(err error) *trouble {
	var login *entrapg.LoginError
	if errors.As(err, &login) {
		err = login.Err // without the hint, which is what it means
	}
	said, _ := refusal.Said(err)
	t := &trouble{}
	for _, e := range said {
		t.Said = words(e)
		if e.Severity == "FATAL" {
			break
		}
	}
	if t.Said == "" {
		t.Said = strings.TrimPrefix(err.Error(), "entrapg: ")
	}
	if login == nil {
		t.Means = "the connection broke in the middle of the login: by a firewall or a proxy in between, or because the server ended. Try again; should it stay, look at the server's log"
		if isTimeout(err) {
			t.Means = "the server did not finish the login in time: it is overloaded, or it cannot reach Entra itself"
		}
		return t
	}
	t.Means = login.Hint
	if d.login.Entra() {
		t.Mend = d.mend(refusal.Of(err).Cause, t.Said)
	}
	for _, e := range said {
		if other, found := otherRefusals[e.Code]; found && t.Means == "" {
			t.Means, t.Mend = other(d)
		}
	}
	return t
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

// otherRefusals have nothing to do with Entra.
var otherRefusals = map[string]func(*diagnosis) (means string, mend []string){
	"3D000": func(d *diagnosis) (string, []string) {
		return "the login is good, and the server has no such database", []string{"create database " + identifier(d.login.Config.Database) + " owner " + identifier(d.token.User) + ";"}
	},
	"42501": func(d *diagnosis) (string, []string) {
		return "the login is good, and the role is not let into this database", []string{"grant connect on database " + identifier(d.login.Config.Database) + " to " + identifier(d.token.User) + ";"}
	},
	"53300": func(*diagnosis) (string, []string) {
		return "the login is good, and the server has no connection left: pools that are too large, or a server that is too small", []string{"select usename, count(*) from pg_stat_activity group by 1 order by 2 desc;"}
	},
	"57P03": func(*diagnosis) (string, []string) {
		return "the server is starting or stopping: try again in a minute", nil
	},
}

// What Azure's messages name.
var (
	quotedResource = regexp.MustCompile(`"(https://[^"]+)"`)
	groupID        = regexp.MustCompile(`(?i)group ID ([\w-]+)`)
)

// asAdministrator goes before SQL that provisions roles.
const asAdministrator = "-- as an Entra administrator of the server, in the database postgres"

// mend is what to type, with the names of this very login.
func (d *diagnosis) mend(cause refusal.Cause, said string) []string {
	user, oid := d.token.User, d.claims.Text("oid")
	server := serverName(d.login.Config.Host)
	typ := "service"
	if d.claims != nil && d.claims.Kind() == claims.Person {
		typ = "user"
	}
	label := fmt.Sprintf(`security label for "pgaadauth" on role %s is 'aadauth,oid=%s,type=%s';`, identifier(user), oid, typ)
	switch cause {
	case refusal.Expired:
		return []string{"date -u", "sudo timedatectl set-ntp true"}
	case refusal.CosmosAudience:
		return []string{"# in the DSN", "entra_scope=https://token.postgres.cosmos.azure.com/.default"}
	case refusal.Audience:
		resource := "https://ossrdbms-aad.database.windows.net"
		if match := quotedResource.FindStringSubmatch(said); match != nil {
			resource = match[1]
		}
		return []string{"# in the DSN", "entra_scope=" + strings.TrimSuffix(resource, "/") + "/.default"}
	case refusal.Malformed:
		return []string{"# past a proxy or PgBouncer, if there is one", "port=5432"}
	case refusal.NoToken:
		if !d.login.Azure {
			return []string{"# shows the token's tenant", "entrapg whoami"}
		}
		return []string{
			"# the token's tenant is " + d.claims.Text("tid") + "; the server's is",
			"az postgres flexible-server show --name " + server + " --resource-group " + resourceGroup(server) + " --query authConfig.tenantId --output tsv",
		}
	case refusal.NoObject:
		return []string{"entrapg whoami"}
	case refusal.PersonAsService, refusal.ServiceAsPerson, refusal.OtherPrincipal:
		var lines []string
		if d.login.Config.User != "" {
			lines = append(lines, "# in the DSN, to log in as whom the token is for: leave user out")
		}
		return append(lines, asAdministrator+", and only if this identity is to have the role: it takes it from whoever has it now", label)
	case refusal.NotInGroup:
		group := "GROUP_ID"
		if match := groupID.FindStringSubmatch(said); match != nil {
			group = match[1]
		}
		return []string{"az ad group member check --group " + group + " --member-id " + oid, "# and where that says true, for a token that knows it", "az logout && az login"}
	case refusal.NoRole, refusal.NotMapped:
		lines := []string{asAdministrator, "select * from pgaadauth_create_principal(" + literal(user) + ", false, false);"}
		if d.login.Config.User != "" && oid != "" {
			lines = append(lines, "-- or, where Entra has nobody of that name, for this token's identity",
				fmt.Sprintf("select * from pgaadauth_create_principal_with_oid(%s, '%s', '%s', false, false);", literal(user), oid, typ))
		}
		if cause == refusal.NotMapped {
			lines = append(lines, "-- or, where the role exists already", label)
		}
		return lines
	case refusal.Plaintext:
		return []string{"# in the DSN", "sslmode=verify-full"}
	case refusal.NotAllowedIn:
		if !d.login.Azure {
			return []string{"-- as a superuser; add a line for this user, database and address to that file", "show hba_file;"}
		}
		return firewall(server)
	case refusal.PgBouncer:
		return []string{"# in the DSN", "port=5432"}
	default:
		return nil
	}
}

func (d *diagnosis) askServer(ctx context.Context, f *finding) *trouble {
	var version, user string
	var pid uint32
	err := d.conn.QueryRow(ctx, "select current_setting('server_version'), session_user::text, pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&version, &user, &pid)
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
		where l.classoid = 'pg_catalog.pg_authid'::regclass and l.provider = 'pgaadauth' and r.rolname = session_user`, pgx.QueryExecModeSimpleProtocol).Scan(&label)
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
		f.warn(&trouble{Said: fmt.Sprintf("this machine's clock is %v off the server's", ahead.Abs()), Means: "tokens are judged by the clock: set it", Mend: []string{"sudo timedatectl set-ntp true"}})
	case ahead.Abs() < time.Second:
		f.note("less than a second off the server's")
	default:
		f.note("%v off the server's", ahead.Abs())
	}
	return nil
}
