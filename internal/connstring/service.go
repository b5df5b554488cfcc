package connstring

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/jackc/pgservicefile"
)

// service returns the settings of the service that s names, from the service file
// that pgx would read. It returns none if the file cannot be read or does not
// contain the service, which pgx reports.
func service(s Settings) Settings {
	name, ok := s["service"]
	if !ok {
		return nil
	}
	path := ServiceFile(s)
	file, err := pgservicefile.ReadServicefile(path)
	if err != nil {
		return nil
	}
	found, err := file.GetService(name.Value)
	if err != nil {
		return nil
	}
	origin := fmt.Sprintf("service %s in %s", name.Value, path)
	all := Settings{}
	for key, value := range found.Settings {
		all[canonicalKey(key)] = Setting{Value: value, Origin: origin}
	}
	return all
}

// ServiceFile returns the path of the service file that pgx reads.
func ServiceFile(s Settings) string {
	if file, ok := s["servicefile"]; ok {
		return file.Value
	}
	return defaultServiceFile()
}

// CheckServiceFile returns the error of reading or parsing a service file.
func CheckServiceFile(path string) error {
	_, err := pgservicefile.ReadServicefile(path)
	return err
}

// defaultServiceFile returns the file that pgx reads if no setting names one.
// On Windows, pgx prefers libpq's location to the home directory.
func defaultServiceFile() string {
	home, err := os.UserHomeDir()
	if err == nil {
		home = filepath.Join(home, ".pg_service.conf")
	}
	appData := os.Getenv("APPDATA")
	if runtime.GOOS != "windows" || appData == "" {
		return home
	}
	path := filepath.Join(appData, "postgresql", ".pg_service.conf")
	if _, err := os.Stat(path); os.IsNotExist(err) {
		if _, err := os.Stat(home); err == nil {
			return home
		}
	}
	return path
}
