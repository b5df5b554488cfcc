# shellcheck shell=bash
# Functions for the run scripts, which source this file in their own folder.
set -euo pipefail

# missing WHAT ends the script because WHAT is not installed. That is a failure only in CI.
missing() {
	echo "skipped: $1 is not installed" >&2
	[ -z "${CI:-}" ]
	exit
}

# timed WHAT COMMAND... runs a command and prints how long WHAT took.
timed() {
	local what=$1 start=$SECONDS
	shift
	"$@"
	echo "$what took $((SECONDS - start)) s" >&2
}
