-- Emulates SECURITY LABEL for "pgaadauth", which maps roles to Entra principals on
-- Azure. PostgreSQL accepts that statement only with a label provider written in C, so
-- the front replaces it by a call of security_label. As on Azure, the labels are stored in
-- pg_shseclabel: all databases share them, they are part of the transaction, and they are
-- dropped with their role.
--
-- This script runs in every database that an Entra administrator uses. pg_dump excludes
-- the schema because of its name.

do $$ begin
	if not exists (select from pg_catalog.pg_roles where rolname = 'azure_pg_admin') then
		create role azure_pg_admin;
	end if;
end $$;

-- PostgreSQL reserves names that begin with pg_.
set local allow_system_table_mods = on;
create schema if not exists pg_aadauth;
create table if not exists pg_aadauth.tenants (tenant text primary key, is_shared boolean, group_sync boolean);
create table if not exists pg_aadauth.principals (tenant text, name text, object_id text, object_type text);
create table if not exists pg_aadauth.members (tenant text, group_id text, object_id text);

-- Returns the roles of the session's tenant. Servers of several tenants can share a
-- PostgreSQL: a second label identifies the tenant of a role.
create or replace function pg_aadauth.roles(for_tenant text)
returns table (role oid, name name, object_id text, object_type text, is_admin boolean, is_mfa boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
	select r.oid, r.rolname, substring(l.label from ',oid=([^,]*)'), substring(l.label from ',type=([^,]*)'),
		l.label ~ ',admin(,|$)', l.label ~ ',mfa(,|$)'
	from pg_shseclabel l
	join pg_roles r on r.oid = l.objoid
	left join pg_shseclabel t on (t.objoid, t.classoid, t.provider) = (l.objoid, l.classoid, 'entrapgtest')
	where l.classoid = 'pg_authid'::regclass and l.provider = 'pgaadauth'
	and coalesce(t.label, '') = (select case when is_shared then tenant else '' end from pg_aadauth.tenants where tenant = for_tenant)
$$;

create or replace procedure pg_aadauth.security_label(role_name text, new_label text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	this record;
	known record;
	actual text;
	found_role oid;
	is_super boolean;
	part text;
	wanted_id text;
	wanted_type text;
	is_admin boolean := false;
	is_mfa boolean := false;
begin
	if not pg_has_role(session_user, 'azure_pg_admin', 'member') then
		raise exception 'must be a Microsoft Entra administrator' using errcode = '42501';
	end if;
	select * into this from pg_aadauth.tenants where tenant = current_setting('entrapgtest.tenant');
	select oid, rolsuper into found_role, is_super from pg_roles where rolname = role_name;
	if found_role is null then
		raise exception 'role "%" does not exist', role_name using errcode = '42704';
	elsif is_super or role_name = 'azure_pg_admin' or role_name ~ '^pg_' then
		raise exception 'permission denied to label role "%"', role_name using errcode = '42501';
	end if;

	if new_label is not null then
		if trim(split_part(new_label, ',', 1)) <> 'aadauth' then
			raise exception 'invalid security label "%": it is aadauth,oid=OBJECT ID,type=user|group|service[,admin][,mfa]', new_label using errcode = '22023';
		end if;
		foreach part in array (string_to_array(new_label, ','))[2:] loop
			part := trim(part);
			case
				when part ~* '^oid=.' then wanted_id := lower(substr(part, 5));
				when lower(part) in ('type=user', 'type=group', 'type=service') then wanted_type := lower(substr(part, 6));
				when lower(part) = 'admin' then is_admin := true;
				when lower(part) = 'mfa' then is_mfa := true;
				else raise exception 'invalid security label "%": unknown part "%"', new_label, part using errcode = '22023';
			end case;
		end loop;
		if wanted_id is null then
			select count(*) as n, min(p.object_id) as object_id, min(p.object_type) as object_type into known
			from pg_aadauth.principals p
			where p.tenant = this.tenant and p.name = role_name and p.object_type = coalesce(wanted_type, p.object_type);
			case known.n
				when 0 then raise exception 'Could not validate AAD user % because its name is not found in the tenant.', role_name using errcode = 'XX000';
				when 1 then wanted_id := known.object_id; wanted_type := known.object_type;
				else raise exception e'Cannot validate Microsoft Entra ID user "%" because its name isn''t unique in the tenant.\nMake sure it''s correct and retry.', role_name using errcode = 'XX000';
			end case;
		end if;
		select p.object_type into actual from pg_aadauth.principals p where p.tenant = this.tenant and p.object_id = wanted_id;
		wanted_type := coalesce(wanted_type, actual);
		if wanted_type is null then
			raise exception 'invalid security label "%": the type is missing', new_label using errcode = '22023';
		elsif actual <> wanted_type then
			raise exception 'incorrect object type provided for principal, given object type: ''%'', actual object type: ''%''', wanted_type, actual using errcode = 'XX000';
		end if;
	end if;

	delete from pg_shseclabel where objoid = found_role and classoid = 'pg_authid'::regclass and provider in ('pgaadauth', 'entrapgtest');
	if is_admin then
		execute format('alter role %I createrole createdb', role_name);
		execute format('grant azure_pg_admin to %I', role_name);
	elsif pg_has_role(found_role, 'azure_pg_admin', 'member') then
		execute format('revoke azure_pg_admin from %I', role_name);
	end if;
	if new_label is not null then
		insert into pg_shseclabel (objoid, classoid, provider, label) values (found_role, 'pg_authid'::regclass, 'pgaadauth',
			format('aadauth,oid=%s,type=%s', wanted_id, wanted_type) || case when is_admin then ',admin' else '' end || case when is_mfa then ',mfa' else '' end);
		if this.is_shared then
			insert into pg_shseclabel (objoid, classoid, provider, label) values (found_role, 'pg_authid'::regclass, 'entrapgtest', this.tenant);
		end if;
	end if;
end $$;

grant usage on schema pg_aadauth to azure_pg_admin;
