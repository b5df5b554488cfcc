package entrapgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// installDirs are the directories where packages install PostgreSQL's programs.
// scripts/install-postgres.sh has the same list.
var installDirs = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // Red Hat, from PostgreSQL's own repository
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/Library/PostgreSQL/*/bin",                          // the installer for macOS
	`C:\Program Files\PostgreSQL\*\bin`,                  // the installer for Windows
}

// findPostgres returns the directory that contains PostgreSQL's programs.
func findPostgres() (string, error) {
	if dir := os.Getenv("ENTRAPG_POSTGRES_BIN"); dir != "" {
		if !holdsPostgres(dir) {
			return "", fmt.Errorf("ENTRAPG_POSTGRES_BIN: %s does not contain PostgreSQL's programs initdb and postgres", dir)
		}
		return filepath.Abs(dir)
	}
	for _, name := range []string{"initdb", "postgres"} {
		path, err := exec.LookPath(program(name))
		if err != nil {
			continue
		}
		for _, path := range []string{path, resolve(path)} {
			if dir := filepath.Dir(path); holdsPostgres(dir) {
				return filepath.Abs(dir)
			}
		}
	}
	if found := installed(); len(found) > 0 {
		return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
	}
	return "", errors.New("PostgreSQL's programs initdb and postgres are not installed: " +
		"`apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora, Red Hat), `brew " +
		"install postgresql` (macOS), " +
		"or https://www.postgresql.org/download/; if they are in another directory, set ENTRAPG_POSTGRES_BIN to it")
}

// installed returns the directories of PostgreSQL's programs in the usual locations.
func installed() []string {
	var found []string
	for _, pattern := range installDirs {
		dirs, _ := filepath.Glob(pattern)
		found = append(found, slices.DeleteFunc(dirs, func(dir string) bool { return !holdsPostgres(dir) })...)
	}
	return found
}

func holdsPostgres(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program(name))); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

func resolve(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

var digits = regexp.MustCompile(`\d+`)

// version returns the major version in a directory's name, or 0 if there is none.
func version(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(filepath.Base(filepath.Dir(dir))))
	return n
}

// program returns the file name of one of PostgreSQL's programs.
func program(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}
