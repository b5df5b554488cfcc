package execute

import (
	"strings"
	"testing"
)

func TestWritesPassword_RecognizesOptions(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{
		"pg_basebackup -R":                          true,
		"/usr/bin/pg_basebackup -D dir -PR":         true,
		"pg_basebackup -vRXs -D dir":                true,
		"pg_basebackup -XR -D dir":                  false, // the value of -X
		"pg_basebackup -D -R":                       false, // the value of -D
		"pg_basebackup -X stream -D dir -R":         true,
		"pg_basebackup -Xstream -Ddir -R":           true,
		"pg_basebackup -i manifest -R":              true,
		"pg_basebackup --write-recovery-conf":       true,
		"pg_basebackup --pgdata=dir --write-rec":    true,
		"pg_basebackup --waldir=dir -D dir":         false,
		"pg_basebackup --wal-method=none -D dir":    false,
		"pg_basebackup -D dir -- -R":                false,
		"pg_basebackup -D dir --slot -R":            true,
		"pg_basebackup -D dir":                      false,
		"PG_BASEBACKUP.EXE -R":                      true, // Windows
		"pg_rewind -cR -D dir --source-server host": true,
		"pg_rewind -D R":                            false,
		"pg_createsubscriber -D dir":                true,
		"pg_dump -R":                                false, // obsolete there
		"psql -R x":                                 false,
	} {
		if warning := writesPassword(strings.Fields(command)); (warning != "") != want {
			t.Errorf("%s: %q", command, warning)
		}
	}
}
