#!/bin/sh
# Installs PgBouncer, which a test in examples starts, with apt-get or brew. It
# does nothing if PgBouncer is installed.
set -eu

found() { command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; }

found && exit 0
echo "installing pgbouncer" >&2
if command -v apt-get >/dev/null; then
	root=
	[ "$(id -u)" = 0 ] || root=sudo
	export DEBIAN_FRONTEND=noninteractive
	$root apt-get update -qq
	# Debian's package starts a PgBouncer on port 6432. The tests start their own.
	$root apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null
	$root service pgbouncer stop >/dev/null 2>&1 || true
elif command -v brew >/dev/null; then
	brew install pgbouncer
else
	echo "install pgbouncer with your system's package manager" >&2
	exit 1
fi
found || { echo "PgBouncer was installed, but is not on PATH" >&2; exit 1; }
