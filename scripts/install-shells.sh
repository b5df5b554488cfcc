#!/bin/sh
# Installs the shells in which the tests complete commands, with apt-get or
# brew. It does nothing if they are installed.
set -eu

missing=
for shell in bash zsh fish; do
	command -v "$shell" >/dev/null || missing="$missing $shell"
done
[ -n "$missing" ] || exit 0
echo "installing$missing" >&2
if command -v apt-get >/dev/null; then
	root=
	[ "$(id -u)" = 0 ] || root=sudo
	export DEBIAN_FRONTEND=noninteractive
	$root apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	$root apt-get install -y -qq --no-install-recommends $missing >/dev/null
elif command -v brew >/dev/null; then
	# shellcheck disable=SC2086
	brew install $missing
else
	echo "install$missing with your system's package manager" >&2
	exit 1
fi
