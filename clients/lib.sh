# What the run scripts of the clients share: they source it in their own folder.
set -euo pipefail

# missing WHAT ends the script, because WHAT is not installed: as skipped, or in CI as failed.
missing() {
	echo "skipped: $1 is not installed" >&2
	[ -z "${CI:-}" ]
	exit
}

# timed WHAT COMMAND... runs a command and prints how long it took.
timed() {
	local what=$1 start=$SECONDS
	shift
	"$@"
	echo "$what took $((SECONDS - start)) s" >&2
}
