// Pgdump: a service that backs up its database every day with pg_dump.
//
// The program passes the user and a current token to pg_dump in the environment,
// which other users cannot read, and not in arguments. pg_dump logs in once, so
// the token may expire while it runs.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
)

// pgDump returns the path of pg_dump, which is on PATH or where Linux
// distributions install PostgreSQL's programs.
func pgDump() (string, error) {
	path, err := exec.LookPath("pg_dump")
	if err == nil {
		return path, nil
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/pg_dump", "/usr/pgsql-*/bin/pg_dump"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", err
}

// environ returns the environment of a program that uses libpq. It contains no
// secret of this program except password, and nothing that changes how libpq
// verifies the server: libpq's own default does not.
func environ(config *pgx.ConnConfig, user, password string) []string {
	mode := "verify-full"
	if config.RuntimeParams["entra_credential"] == "none" && config.TLSConfig == nil {
		mode = "disable"
	}
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"SystemRoot=" + os.Getenv("SystemRoot"), // for Windows
		"PGHOST=" + config.Host,
		"PGPORT=" + strconv.Itoa(int(config.Port)),
		"PGDATABASE=" + config.Database,
		"PGUSER=" + user,
		"PGPASSWORD=" + password,
		"PGSSLMODE=" + mode,
		// libpq does not find the system's roots by itself. This is the file of Debian and Ubuntu.
		"PGSSLROOTCERT=" + cmp.Or(os.Getenv("PGSSLROOTCERT"), "/etc/ssl/certs/ca-certificates.crt"),
		"PGGSSENCMODE=disable", // libpq would try GSSAPI encryption before TLS
	}
}

// dump writes a dump of the database to w.
func dump(ctx context.Context, dsn string, connector *entrapg.Connector, w io.Writer) error {
	config, err := pgx.ParseConfig(dsn) // for the host and the database
	if err != nil {
		return err
	}
	path, err := pgDump()
	if err != nil {
		return err
	}
	user, token, err := connector.Credentials(ctx)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	child := exec.CommandContext(ctx, path, "--no-password")
	child.Env = environ(config, user, token)
	child.Stdout, child.Stderr = w, &stderr
	if err := child.Run(); err != nil {
		return fmt.Errorf("pg_dump: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// backUp writes a dump to a file in dir. The file gets its name once it is complete.
func backUp(ctx context.Context, dsn string, connector *entrapg.Connector, dir string) error {
	file, err := os.CreateTemp(dir, "*.incomplete")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := dump(ctx, dsn, connector, file); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(dir, time.Now().UTC().Format("20060102T150405Z")+".sql"))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dsn := os.Getenv("DATABASE_URL")
	connector := entrapg.NewConnector(dsn)
	defer connector.Close()
	for ctx.Err() == nil {
		if err := backUp(ctx, dsn, connector, os.Getenv("BACKUP_DIR")); err != nil {
			log.Print(err)
		}
		select {
		case <-time.After(24 * time.Hour):
		case <-ctx.Done():
		}
	}
}
