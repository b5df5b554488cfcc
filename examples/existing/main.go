// Existing: a program with an existing configuration.
//
// It reads its own file, parses the DSN with pgx and sets limits, parameters and
// hooks. None of that changes: ConfigurePool adds the login to the pool's
// configuration, and NewConnectorWithConfig to one for database/sql.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
)

type settings struct {
	DSN              string `json:"dsn"`
	MaxConns         int32  `json:"maxConns"`
	StatementTimeout string `json:"statementTimeout"`
}

func load(path string) (s settings, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(text, &s)
	return s, err
}

// poolConfig is unchanged since the DSN contained a password.
func (s settings) poolConfig() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(s.DSN)
	if err != nil {
		return nil, err
	}
	config.MaxConns = s.MaxConns
	config.ConnConfig.RuntimeParams["statement_timeout"] = s.StatementTimeout
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		host, err := os.Hostname()
		c.RuntimeParams["application_name"] = "shop on " + host
		return err
	}
	return config, nil
}

// openPool opens the pool that answers requests.
func openPool(ctx context.Context, s settings) (*pgxpool.Pool, error) {
	config, err := s.poolConfig()
	if err != nil {
		return nil, err
	}
	if err := entrapg.ConfigurePool(config); err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// openDB opens a database for a library that takes a *sql.DB.
func openDB(s settings) (*sql.DB, error) {
	config, err := s.poolConfig()
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(entrapg.NewConnectorWithConfig(config.ConnConfig)), nil
}

func main() {
	ctx := context.Background()
	s, err := load(os.Getenv("CONFIG_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	pool, err := openPool(ctx, s)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	db, err := openDB(s)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	for name, ping := range map[string]func(context.Context) error{"pool": pool.Ping, "database/sql": db.PingContext} {
		if err := ping(ctx); err != nil {
			log.Fatal(err)
		}
		fmt.Println("logged in by", name)
	}
}
