package entrapgtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// CreateAdmin maps a role as [Server.CreateRole] does, and makes it an Entra
// administrator. The first call installs Azure's functions in the database postgres:
// pgaadauth_create_principal, pgaadauth_create_principal_with_oid,
// pgaadauth_update_principal_with_oid, pgaadauth_list_principals and
// pgaadauth_sync_roles_for_group_members (see Config.GroupSync). Administrators can
// also map existing roles in every database, with SECURITY LABEL for "pgaadauth".
// The functions know all principals of the tenant at the time of the call.
//
// Administrators can create roles and databases. They cannot run programs or read and
// write files as the operating system user that runs PostgreSQL. On PostgreSQL 14 and
// 15, a role that can create roles can grant any other role. There, the first call
// removes pg_execute_server_program, pg_read_server_files, pg_write_server_files,
// pg_read_all_data and pg_write_all_data, except with Config.Upstream.
func (s *Server) CreateAdmin(ctx context.Context, role string, p *Principal) error {
	if err := s.provision(ctx); err != nil {
		return err
	}
	return s.createRole(ctx, role, p, true)
}

// SyncGroups creates roles for the members of groups that have a role. It requires
// Config.GroupSync. Azure, and this server, also do that every 30 minutes and when an
// administrator calls pgaadauth_sync_roles_for_group_members.
func (s *Server) SyncGroups(ctx context.Context) error {
	if err := s.provision(ctx); err != nil {
		return err
	}
	return s.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := s.writePrincipals(ctx, conn); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "select pgaadauth_sync_roles_for_group_members()")
		return err
	})
}

// syncGroups syncs groups periodically until the server closes.
func (s *Server) syncGroups() {
	for sleep(s.ctx, groupSyncInterval) == nil {
		_ = s.SyncGroups(s.ctx) // errors are not reported, as on Azure
	}
}

// provision installs Azure's functions. It writes the existing mappings into the
// database as labels. From then on, the labels are the mappings.
func (s *Server) provision(ctx context.Context) error {
	s.roles.mu.Lock()
	defer s.roles.mu.Unlock()
	if s.roles.provisioned {
		return nil
	}
	err := s.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := s.installLabels(ctx, conn); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, advisoryLock+pgaadauthSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if s.cluster != nil {
			if _, err := conn.Exec(ctx, dropPredefinedRoles); err != nil {
				return err
			}
		}
		for role, m := range s.roles.mapped {
			if err := s.label(ctx, conn, role, m); err != nil {
				return err
			}
		}
		return nil
	})
	s.roles.provisioned = err == nil
	return err
}

// installLabels prepares a database for SECURITY LABEL, and writes the tenant's
// principals into it.
func (s *Server) installLabels(ctx context.Context, conn *pgx.Conn) error {
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
	return s.writePrincipals(ctx, conn)
}

// inDatabase connects to a database as superuser and calls do. Administrators can create
// functions there, which the search path excludes.
func (s *Server) inDatabase(ctx context.Context, database string, do func(*pgx.Conn) error) error {
	config := s.upstream.Copy()
	config.Database = database
	config.RuntimeParams["search_path"] = "pg_catalog"
	config.RuntimeParams[tenantSetting] = s.Tenant.ID
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// label writes a mapping into the database.
func (s *Server) label(ctx context.Context, conn *pgx.Conn, role string, m mapping) error {
	label := "aadauth,oid=" + m.objectID + ",type=" + m.objectType
	if m.admin {
		label += ",admin"
	}
	_, err := conn.Exec(ctx, advisoryLock+"call pg_aadauth.security_label($1, $2)",
		pgx.QueryExecModeSimpleProtocol, role, label)
	return err
}

// mappingOf returns the mapping of a role.
func (s *Server) mappingOf(ctx context.Context, role string) (m mapping, mapped bool, err error) {
	m, mapped, provisioned := s.roles.find(role)
	if !provisioned {
		return m, mapped, nil
	}
	err = s.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			select object_id, object_type, pg_has_role(role, 'azure_pg_admin', 'member'), is_mfa
			from pg_aadauth.roles($1) where name = $2`,
			s.Tenant.ID, role).Scan(&m.objectID, &m.objectType, &m.admin, &m.mfa)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return mapping{}, false, nil
	}
	return m, err == nil, err
}

// writePrincipals writes the tenant's principals into a database.
func (s *Server) writePrincipals(ctx context.Context, conn *pgx.Conn) error {
	var names, ids, types, groups, members []string
	for _, p := range s.Tenant.directory.all() {
		names, ids, types = append(names, p.Name), append(ids, p.ObjectID), append(types, p.Kind.objectType())
		for _, g := range p.Groups {
			groups, members = append(groups, g.ObjectID), append(members, p.ObjectID)
		}
	}
	batch := &pgx.Batch{}
	batch.Queue("select pg_advisory_xact_lock(727263)")
	batch.Queue(`insert into pg_aadauth.tenants values ($1, $2, $3)
		on conflict (tenant) do update set is_shared = excluded.is_shared, group_sync = excluded.group_sync`,
		s.Tenant.ID, s.cluster == nil, s.config.GroupSync)
	batch.Queue("delete from pg_aadauth.principals where tenant = $1", s.Tenant.ID)
	batch.Queue("insert into pg_aadauth.principals select $1, * from unnest($2::text[], $3::text[], $4::text[])",
		s.Tenant.ID, names, ids, types)
	batch.Queue("delete from pg_aadauth.members where tenant = $1", s.Tenant.ID)
	batch.Queue("insert into pg_aadauth.members select $1, * from unnest($2::text[], $3::text[])",
		s.Tenant.ID, groups, members)
	err := conn.SendBatch(ctx, batch).Close()
	if hasCode(err, readOnly) { // a replica gets them from its primary
		return nil
	}
	return err
}

// SQLSTATEs of PostgreSQL.
const (
	readOnly        = "25006"
	duplicateObject = "42710"
)

func hasCode(err error, codes ...string) bool {
	var response *pgconn.PgError
	return errors.As(err, &response) && slices.Contains(codes, response.Code)
}

// connectAs logs in to the real server as a mapped role. If an administrator has mapped
// the role in SQL, connectAs first sets its password there.
func (s *Server) connectAs(ctx context.Context, config *pgconn.Config) (*pgconn.PgConn, error) {
	config.Password = s.roles.password(config.User)
	conn, err := pgconn.ConnectConfig(ctx, config)
	if !hasCode(err, invalidPassword) {
		return conn, err
	}
	if err := s.setPassword(ctx, config.User); err != nil {
		return nil, err
	}
	for { // until the password has reached the replica
		conn, err = pgconn.ConnectConfig(ctx, config)
		if s.config.Primary == nil || !hasCode(err, invalidPassword) || sleep(ctx, 10*time.Millisecond) != nil {
			return conn, err
		}
	}
}

func (s *Server) setPassword(ctx context.Context, role string) error {
	secret, err := verifier(s.roles.password(role))
	if err != nil {
		return err
	}
	err = s.exec(ctx, fmt.Sprintf("alter role %s password '%s'", pgx.Identifier{role}.Sanitize(), secret))
	if hasCode(err, readOnly) && s.config.Primary != nil {
		return s.config.Primary.setPassword(ctx, role)
	}
	return err
}

// prepareAdmin prepares a database for the session of an administrator.
func (s *Server) prepareAdmin(ctx context.Context, database string) error {
	err := s.inDatabase(ctx, database, func(conn *pgx.Conn) error { return s.installLabels(ctx, conn) })
	var response *pgconn.PgError
	if errors.As(err, &response) && !strings.HasPrefix(response.Code, "53") && !strings.HasPrefix(response.Code, "57") {
		return nil // such as a missing database, which the login itself reports
	}
	return err
}
