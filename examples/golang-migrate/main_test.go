package main

import (
	"errors"
	"testing"

	"github.com/entrapg/entrapg/examples/internal/azuretest"
)

func TestGolangMigrate_MigratesUpAndDownWhileTokensExpire(t *testing.T) {
	azuretest.Run(t, func(_ *testing.T, dsn string) func() error {
		return func() error {
			m, err := migrations(dsn)
			if err != nil {
				return err
			}
			up := m.Up()
			version, dirty, err := m.Version()
			if err == nil && (version != 2 || dirty) {
				err = errors.New("the database is not at version 2")
			}
			err = errors.Join(up, err, m.Down())
			source, database := m.Close()
			return errors.Join(err, source, database)
		}
	})
}
