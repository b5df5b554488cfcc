#!/bin/sh
# Compares the exported API of the packages with that of a tag and prints the
# differences. It exits with 1 if a change is incompatible and TAG is v1 or newer;
# before v1, incompatible changes are allowed in a minor release.
#
#   compare-api.sh [TAG]      TAG is the newest version tag if omitted
set -eu
cd "$(dirname "$0")/.."
tag=${1:-$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)}
if [ -z "$tag" ]; then
	echo "No version tag to compare with."
	exit 0
fi

work=$(mktemp -d)
trap 'git worktree remove --force "$work/old" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/old" "$tag"
(cd tools && go build -o "$work/apidiff" golang.org/x/exp/cmd/apidiff)

status=0
for package in . ./entrapgtest; do
	name=$(go list "$package")
	(cd "$work/old" && "$work/apidiff" -w "$work/export" "$name")
	changes=$("$work/apidiff" "$work/export" "$name")
	printf '## %s since %s\n\n%s\n\n' "$name" "$tag" "${changes:-No changes.}"
	case $tag in v0.*) continue ;; esac
	[ -z "$("$work/apidiff" -incompatible "$work/export" "$name")" ] || status=1
done
exit $status
