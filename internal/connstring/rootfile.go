package connstring

import (
	"os"
	"path/filepath"
	"runtime"
)

// DefaultRootFile returns the path of the root certificates that pgx and libpq read
// if the file exists and no setting names another one.
func DefaultRootFile() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("APPDATA"), "postgresql", "root.crt")
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, ".postgresql", "root.crt")
}
