package inspect_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/inspect"
)

func TestHosts_FollowDSN(t *testing.T) {
	t.Setenv("PGPORT", "")
	t.Setenv("PGSSLMODE", "")
	for dsn, want := range map[string]string{
		"host=a":                                      "a:5432 true",
		"host=a,b port=5432,6432":                     "a:5432 true, b:6432 true",
		"host=a,a sslmode=require":                    "a:5432 true, a:5432 true",
		"host=a,a sslmode=prefer":                     "a:5432 true, a:5432 true",
		"host=a,b,a sslmode=allow":                    "a:5432 false, b:5432 false, a:5432 false",
		"host=a,a port=5432,6432 sslmode=prefer":      "a:5432 true, a:6432 true",
		"host=/run/postgresql,a,b,b sslmode=disable":  "/run/postgresql:5432 false, a:5432 false, b:5432 false, b:5432 false",
		"host=/run/postgresql,a,a,b,b sslmode=prefer": "/run/postgresql:5432 false, a:5432 true, a:5432 true, b:5432 true, b:5432 true",
	} {
		config, err := pgconn.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range inspect.Hosts(config) {
			got = append(got, fmt.Sprintf("%s:%d %v", h.Host, h.Port, h.TLSConfig != nil))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: got %s, want %s", dsn, got, want)
		}
	}
}
