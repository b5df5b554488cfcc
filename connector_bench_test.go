package entrapg_test

import (
	"database/sql/driver"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// BenchmarkConnector_Connect compares a connection with one by pgx's connector and a static
// password, for the same server, role and token. The two take turns; the ratio is the median
// of all pairs.
func BenchmarkConnector_Connect(b *testing.B) {
	s := start(b, entrapgtest.Config{})
	p := s.Tenant.NewUser("bench@contoso.example")
	createRole(b, s, "", p)
	token, err := p.GetToken(b.Context(), tokenOptions(databaseScope))
	if err != nil {
		b.Fatal(err)
	}
	config, err := pgx.ParseConfig(s.DSN() + "&user=" + p.Name)
	if err != nil {
		b.Fatal(err)
	}
	config.Password = token.Token
	config.ConnectTimeout = 30 * time.Second // entrapg's default
	static := stdlib.GetConnector(*config)
	entra := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(p))
	defer entra.Close()

	connect := func(b *testing.B, c driver.Connector) time.Duration {
		start := time.Now()
		conn, err := c.Connect(b.Context())
		took := time.Since(start)
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
		return took
	}
	connect(b, entra)
	connect(b, static)

	b.Run("entrapg", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			connect(b, entra)
		}
	})
	b.Run("static", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			connect(b, static)
		}
	})
	b.Run("ratio", func(b *testing.B) {
		var ratios []float64
		for i := range max(1000, b.N) { // fewer pairs are too noisy
			var e, s time.Duration
			if i%2 == 0 {
				e, s = connect(b, entra), connect(b, static)
			} else {
				s, e = connect(b, static), connect(b, entra)
			}
			ratios = append(ratios, float64(e)/float64(s))
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "×static")
		b.ReportMetric(0, "ns/op")
	})
}
