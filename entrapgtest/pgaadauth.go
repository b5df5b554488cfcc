package entrapgtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/pgwire"
)

//go:embed label.sql
var labelSQL string

//go:embed pgaadauth.sql
var pgaadauthSQL string

const (
	// tenantSetting tells the functions of label.sql and pgaadauth.sql the tenant of the
	// server that a session uses.
	tenantSetting = "entrapgtest.tenant"

	// groupSyncSetting is Azure's server parameter.
	groupSyncSetting = "pgaadauth.enable_group_sync"

	// groupSyncInterval is the interval at which Azure syncs the members of groups.
	groupSyncInterval = 30 * time.Minute

	// advisoryLock makes servers that share a PostgreSQL take turns.
	advisoryLock = "select pg_catalog.pg_advisory_xact_lock(727263);"
)

// dropPredefinedRoles removes the predefined roles whose members can act as the
// operating system user that runs PostgreSQL, or read and write all tables. It is not
// needed from PostgreSQL 16 on, where only members with the admin option can grant them.
// PostgreSQL checks membership by OID, and no other role gets these OIDs.
const dropPredefinedRoles = `
	delete from pg_catalog.pg_authid
	where pg_catalog.current_setting('server_version_num')::int < 160000 and rolname in (
		'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data')`

// An administration maps roles to principals. Azure's functions do that, too, once they
// are installed.
type administration struct {
	tenant    *Tenant
	backend   *backend
	roles     *roles
	groupSync bool
	throwaway bool // no other server uses the PostgreSQL
}

// createRole maps a role to a principal. It creates the role if it does not exist.
func (a *administration) createRole(ctx context.Context, role string, p *Principal, admin bool) error {
	if p == nil || p.tenant != a.tenant {
		return errors.New("the principal must be in this server's tenant")
	}
	if role == "" {
		role = p.Name
	}
	switch {
	case role == "" || len(role) > 63 || strings.IndexByte(role, 0) >= 0:
		return fmt.Errorf("invalid role %q: PostgreSQL's names have 1 to 63 bytes and no NUL", role)
	case role == a.backend.config.User:
		return fmt.Errorf("role %q is the superuser that this server itself uses; choose another role", role)
	}
	name := pgx.Identifier{role}.Sanitize()
	// Servers that share a PostgreSQL take turns: without the lock, roles that are created
	// and grants that are made at the same time fail.
	if err := a.backend.exec(ctx, advisoryLock+"create role "+name); err != nil && !hasCode(err, duplicateObject) {
		return err
	}
	rights := ""
	if admin {
		rights = " createrole createdb; grant azure_pg_admin to " + name
	}
	if err := a.backend.exec(ctx,
		advisoryLock+"alter role "+name+" login password '"+a.roles.verifier(role)+"'"+rights); err != nil {
		return err
	}
	m := mapping{objectID: p.ObjectID, objectType: p.Kind.objectType(), admin: admin}
	if provisioned := a.roles.add(role, m); !provisioned {
		return nil
	}
	return a.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := a.writePrincipals(ctx, conn); err != nil {
			return err
		}
		return a.label(ctx, conn, role, m)
	})
}

// createAdmin installs Azure's functions, and maps a role of an administrator.
func (a *administration) createAdmin(ctx context.Context, role string, p *Principal) error {
	if err := a.provision(ctx); err != nil {
		return err
	}
	return a.createRole(ctx, role, p, true)
}

// syncGroups creates roles for the members of groups that have a role.
func (a *administration) syncGroups(ctx context.Context) error {
	if err := a.provision(ctx); err != nil {
		return err
	}
	return a.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := a.writePrincipals(ctx, conn); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "select pgaadauth_sync_roles_for_group_members()")
		return err
	})
}

// keepGroupsInSync syncs groups periodically until ctx ends.
func (a *administration) keepGroupsInSync(ctx context.Context) {
	for sleep(ctx, groupSyncInterval) == nil {
		_ = a.syncGroups(ctx) // errors are not reported, as on Azure
	}
}

// provision installs Azure's functions. It writes the existing mappings into the
// database as labels. From then on, the labels are the mappings.
func (a *administration) provision(ctx context.Context) error {
	a.roles.mu.Lock()
	defer a.roles.mu.Unlock()
	if a.roles.provisioned {
		return nil
	}
	err := a.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := a.installLabels(ctx, conn); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, advisoryLock+pgaadauthSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if a.throwaway {
			if _, err := conn.Exec(ctx, dropPredefinedRoles); err != nil {
				return err
			}
		}
		for role, m := range a.roles.mapped {
			if err := a.label(ctx, conn, role, m); err != nil {
				return err
			}
		}
		return nil
	})
	a.roles.provisioned = err == nil
	return err
}

// installLabels prepares a database for SECURITY LABEL, and writes the tenant's
// principals into it.
func (a *administration) installLabels(ctx context.Context, conn *pgx.Conn) error {
	var installed bool
	const known = "select pg_catalog.to_regprocedure('pg_aadauth.security_label(text, text)') is not null"
	if err := conn.QueryRow(ctx, known).Scan(&installed); err != nil {
		return err
	}
	if !installed {
		if _, err := conn.Exec(ctx, advisoryLock+labelSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return a.writePrincipals(ctx, conn)
}

// inDatabase connects to a database as superuser and calls do. Administrators can create
// functions there, which the search path excludes.
func (a *administration) inDatabase(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	config := a.backend.config.Copy()
	config.Database = database
	config.RuntimeParams["search_path"] = "pg_catalog"
	config.RuntimeParams[tenantSetting] = a.tenant.ID
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// label writes a mapping into the database.
func (a *administration) label(ctx context.Context, conn *pgx.Conn, role string, m mapping) error {
	label := "aadauth,oid=" + m.objectID + ",type=" + m.objectType
	if m.admin {
		label += ",admin"
	}
	_, err := conn.Exec(ctx, advisoryLock+"call pg_aadauth.security_label($1, $2)",
		pgx.QueryExecModeSimpleProtocol, role, label)
	return err
}

// mappingOf returns the mapping of a role.
func (a *administration) mappingOf(ctx context.Context, role string) (m mapping, mapped bool, err error) {
	m, mapped, provisioned := a.roles.find(role)
	if !provisioned {
		return m, mapped, nil
	}
	err = a.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			select object_id, object_type, pg_has_role(role, 'azure_pg_admin', 'member'), is_mfa
			from pg_aadauth.roles($1) where name = $2`,
			a.tenant.ID, role).Scan(&m.objectID, &m.objectType, &m.admin, &m.mfa)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return mapping{}, false, nil
	}
	return m, err == nil, err
}

// writePrincipals writes the tenant's principals into a database.
func (a *administration) writePrincipals(ctx context.Context, conn *pgx.Conn) error {
	var names, ids, types, groups, members []string
	for _, p := range a.tenant.directory.all() {
		names, ids, types = append(names, p.Name), append(ids, p.ObjectID), append(types, p.Kind.objectType())
		for _, g := range p.Groups {
			groups, members = append(groups, g.ObjectID), append(members, p.ObjectID)
		}
	}
	batch := &pgx.Batch{}
	batch.Queue("select pg_advisory_xact_lock(727263)")
	batch.Queue(`insert into pg_aadauth.tenants values ($1, $2, $3)
		on conflict (tenant) do update set is_shared = excluded.is_shared, group_sync = excluded.group_sync`,
		a.tenant.ID, !a.throwaway, a.groupSync)
	batch.Queue("delete from pg_aadauth.principals where tenant = $1", a.tenant.ID)
	batch.Queue("insert into pg_aadauth.principals select $1, * from unnest($2::text[], $3::text[], $4::text[])",
		a.tenant.ID, names, ids, types)
	batch.Queue("delete from pg_aadauth.members where tenant = $1", a.tenant.ID)
	batch.Queue("insert into pg_aadauth.members select $1, * from unnest($2::text[], $3::text[])",
		a.tenant.ID, groups, members)
	err := conn.SendBatch(ctx, batch).Close()
	if hasCode(err, readOnly) { // a replica gets them from its primary
		return nil
	}
	return err
}

// prepareSession prepares the session of a mapped role in the database of its startup
// message.
func (a *administration) prepareSession(ctx context.Context, startup *pgwire.Startup, m mapping) error {
	if a.groupSync {
		startup.Set(groupSyncSetting, "on")
	}
	if !m.admin {
		return nil
	}
	startup.Set(tenantSetting, a.tenant.ID)
	return a.prepareDatabase(ctx, startup.Get("database"))
}

// prepareDatabase prepares a database for an administrator.
func (a *administration) prepareDatabase(ctx context.Context, database string) error {
	err := a.inDatabase(ctx, database, func(conn *pgx.Conn) error { return a.installLabels(ctx, conn) })
	var response *pgconn.PgError
	if errors.As(err, &response) && !strings.HasPrefix(response.Code, "53") && !strings.HasPrefix(response.Code, "57") {
		return nil // such as a missing database, which the login itself reports
	}
	return err
}
