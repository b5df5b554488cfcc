#!/bin/sh
# Installs PostgreSQL's programs, which the tests and the demo need, with apt-get
# or brew. It does nothing if they are installed. Package entrapgtest looks for
# them in the same places.
set -eu

found() {
	if [ -n "${ENTRAPG_POSTGRES_BIN:-}" ]; then
		[ -x "$ENTRAPG_POSTGRES_BIN/initdb" ] && return 0
		echo "ENTRAPG_POSTGRES_BIN=$ENTRAPG_POSTGRES_BIN does not contain PostgreSQL's programs" >&2
		exit 1
	fi
	command -v initdb >/dev/null && return 0
	for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
		/opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb \
		/home/linuxbrew/.linuxbrew/opt/postgresql*/bin/initdb \
		/Applications/Postgres.app/Contents/Versions/*/bin/initdb /Library/PostgreSQL/*/bin/initdb; do
		[ -x "$initdb" ] && return 0
	done
	return 1
}

found && exit 0
echo "installing postgresql" >&2
if command -v apt-get >/dev/null; then
	root=
	[ "$(id -u)" = 0 ] || root=sudo
	export DEBIAN_FRONTEND=noninteractive
	$root apt-get update -qq
	# Keep Debian's package from starting a server on port 5432.
	$root mkdir -p /etc/postgresql-common/createcluster.d
	echo 'create_main_cluster = false' | $root tee /etc/postgresql-common/createcluster.d/entrapg.conf >/dev/null
	$root apt-get install -y -qq --no-install-recommends postgresql >/dev/null
	$root rm -f /etc/postgresql-common/createcluster.d/entrapg.conf
elif command -v brew >/dev/null; then
	brew install postgresql@18
else
	cat >&2 <<-'EOF'
		Neither apt-get nor brew was found. Install PostgreSQL 14 or newer:
		  dnf install postgresql-server          (Fedora, Red Hat)
		  https://www.postgresql.org/download/   (other systems)
		If its programs are not found then, set ENTRAPG_POSTGRES_BIN to their directory.
	EOF
	exit 1
fi
found || { echo "PostgreSQL was installed, but its programs were not found; set ENTRAPG_POSTGRES_BIN to their directory" >&2; exit 1; }
