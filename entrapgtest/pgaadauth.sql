-- Emulates the functions of Azure Database for PostgreSQL that scripts of Entra
-- administrators use to create roles. Azure has them in the database postgres.
-- https://learn.microsoft.com/azure/postgresql/security/security-manage-entra-users
-- The messages are Azure's where they are publicly known. The SQLSTATEs are not.

grant all on database postgres to azure_pg_admin with grant option;
grant all on schema public to azure_pg_admin with grant option;

-- The roles that group sync has granted a group's role to.
create table if not exists pg_aadauth.synced (tenant text, role oid, group_role oid, primary key (role, group_role));

-- pg_dump excludes functions in pg_catalog only if they have default privileges, so
-- each function checks its caller itself.
create or replace function pg_aadauth.require_admin(called text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
	if not pg_has_role(session_user, 'azure_pg_admin', 'member') then
		raise exception 'permission denied for function %', called using errcode = '42501';
	end if;
end $$;

create or replace function pg_catalog.pgaadauth_update_principal_with_oid(roleName text, objectId text, objectType text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	perform pg_aadauth.require_admin('pgaadauth_update_principal_with_oid');
	if objectType not in ('user', 'group', 'service') then
		raise exception 'invalid object type "%": it is one of user, group, service', objectType using errcode = '22023';
	end if;
	call pg_aadauth.security_label(roleName, 'aadauth,oid=' || objectId || ',type=' || objectType ||
		case when isAdmin then ',admin' else '' end || case when isMfa then ',mfa' else '' end);
	return format('Updated role for "%s"', roleName);
end $$;

create or replace function pg_catalog.pgaadauth_create_principal_with_oid(roleName text, objectId text, objectType text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	perform pg_aadauth.require_admin('pgaadauth_create_principal_with_oid');
	if objectType not in ('user', 'group', 'service') then
		raise exception 'invalid object type "%": it is one of user, group, service', objectType using errcode = '22023';
	end if;
	execute format('create role %I login', roleName);
	if not isAdmin then
		execute format('grant %I to azure_pg_admin with admin option', roleName);
	end if;
	call pg_aadauth.security_label(roleName, 'aadauth,oid=' || objectId || ',type=' || objectType ||
		case when isAdmin then ',admin' else '' end || case when isMfa then ',mfa' else '' end);
	return format('Created role for "%s"', roleName);
end $$;

create or replace function pg_catalog.pgaadauth_create_principal(roleName text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	perform pg_aadauth.require_admin('pgaadauth_create_principal');
	execute format('create role %I login', roleName);
	if not isAdmin then
		execute format('grant %I to azure_pg_admin with admin option', roleName);
	end if;
	call pg_aadauth.security_label(roleName, 'aadauth' ||
		case when isAdmin then ',admin' else '' end || case when isMfa then ',mfa' else '' end);
	return format('Created role for "%s"', roleName);
end $$;

create or replace function pg_catalog.pgaadauth_list_principals(isAdminValue boolean)
returns table (rolename name, principalType text, objectId text, tenantId text, isMfa integer, isAdmin integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	perform pg_aadauth.require_admin('pgaadauth_list_principals');
	return query
	select r.name, r.object_type, r.object_id, current_setting('entrapgtest.tenant'), r.is_mfa::integer, r.is_admin::integer
	from pg_aadauth.roles(current_setting('entrapgtest.tenant')) r
	where r.is_admin or not isAdminValue
	order by r.name;
end $$;

-- Creates a role for each member of a group that has a role, and grants the group's role
-- to it. Revokes the group's role from former members. If a role with another name is
-- mapped to a member, that role is used. A role that only has the member's name is not
-- changed.
create or replace function pg_catalog.pgaadauth_sync_roles_for_group_members()
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	this constant text := current_setting('entrapgtest.tenant');
	member record;
	gone record;
begin
	perform pg_aadauth.require_admin('pgaadauth_sync_roles_for_group_members');
	if not (select group_sync from pg_aadauth.tenants where tenant = this) then
		raise exception 'group sync is not enabled: set the server parameter pgaadauth.enable_group_sync to on' using errcode = '55000';
	end if;
	for member in
		select distinct p.name, p.object_id, p.object_type
		from pg_aadauth.roles(this) g
		join pg_aadauth.members m on m.tenant = this and m.group_id = g.object_id
		join pg_aadauth.principals p on p.tenant = this and p.object_id = m.object_id
		where g.object_type = 'group' and p.object_type <> 'group'
		and not exists (select from pg_aadauth.roles(this) r where r.object_id = p.object_id)
	loop
		if exists (select from pg_roles where rolname = member.name) then
			raise notice 'role "%" exists and is not mapped to the member of that name', member.name;
			continue;
		end if;
		execute format('create role %I login', member.name);
		execute format('grant %I to azure_pg_admin with admin option', member.name);
		call pg_aadauth.security_label(member.name, format('aadauth,oid=%s,type=%s', member.object_id, member.object_type));
	end loop;
	for member in
		select r.role, r.name, g.role as group_role, g.name as group_name
		from pg_aadauth.roles(this) g
		join pg_aadauth.members m on m.tenant = this and m.group_id = g.object_id
		join pg_aadauth.roles(this) r on r.object_id = m.object_id
		where g.object_type = 'group' and r.object_type <> 'group' and not pg_has_role(r.role, g.role, 'member')
	loop
		execute format('grant %I to %I', member.group_name, member.name);
		insert into pg_aadauth.synced values (this, member.role, member.group_role) on conflict do nothing;
	end loop;
	for gone in
		select s.role, s.group_role, r.rolname as name, g.rolname as group_name
		from pg_aadauth.synced s
		join pg_roles r on r.oid = s.role
		join pg_roles g on g.oid = s.group_role
		where s.tenant = this and not exists (
			select from pg_aadauth.roles(this) mapped
			join pg_aadauth.roles(this) mapped_group on mapped_group.role = s.group_role
			join pg_aadauth.members m on m.tenant = this and m.group_id = mapped_group.object_id and m.object_id = mapped.object_id
			where mapped.role = s.role)
	loop
		execute format('revoke %I from %I', gone.group_name, gone.name);
		delete from pg_aadauth.synced where role = gone.role and group_role = gone.group_role;
	end loop;
end $$;
