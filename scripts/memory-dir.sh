#!/bin/sh
# Prints a directory in memory that can take the temporary files of the tests, or the
# usual directory: programs must be executable in it, and 4 GB be free.
dir=/dev/shm
free=$(df -Pk "$dir" 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ "${free:-0}" -gt 4000000 ] && [ -w "$dir" ] && grep -q "^tmpfs $dir " /proc/mounts && ! grep -q "^tmpfs $dir .*noexec" /proc/mounts; then
	echo "$dir"
else
	echo "${TMPDIR:-/tmp}"
fi
