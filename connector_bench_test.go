package entrapg_test

import (
	"database/sql"
	"database/sql/driver"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// BenchmarkConnector_Connect compares Connect with that of pgx's connector with a static
// password, for the same server, role and token. The two alternate; the ratio is the
// median of all pairs.
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

// BenchmarkNewConnector_Memory measures the heap that an idle connector takes, beyond a
// pgx.ConnConfig of the same DSN.
func BenchmarkNewConnector_Memory(b *testing.B) {
	const size, dsn = 1000, "postgres://app@shop.postgres.database.azure.com/shop"
	heap := func() float64 {
		for range 3 { // cleanups of the first collection free more in the next
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	var beyond []float64
	for range max(3, min(b.N, 9)) {
		configs := make([]*pgx.ConnConfig, size)
		before := heap()
		for i := range configs {
			var err error
			if configs[i], err = pgx.ParseConfig(dsn); err != nil {
				b.Fatal(err)
			}
		}
		alone := heap() - before
		runtime.KeepAlive(configs)

		connectors := make([]*entrapg.Connector, size)
		credential := &numbered{life: time.Hour}
		before = heap()
		for i := range connectors {
			connectors[i] = entrapg.NewConnector(dsn, entrapg.WithCredential(credential))
		}
		beyond = append(beyond, (heap()-before-alone)/size/1024)
		for _, c := range connectors {
			c.Close()
		}
	}
	slices.Sort(beyond)
	b.ReportMetric(beyond[len(beyond)/2], "KiB/connector")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkConnector_FirstQuery measures the time from a DSN to the result of the first query,
// with a token that the credential has already.
func BenchmarkConnector_FirstQuery(b *testing.B) {
	s := start(b, entrapgtest.Config{})
	p := s.Tenant.NewUser("bench@contoso.example")
	createRole(b, s, "", p)
	b.ReportAllocs()
	for b.Loop() {
		db := sql.OpenDB(entrapg.NewConnector(s.DSN(), entrapg.WithCredential(p)))
		var one int
		if err := db.QueryRowContext(b.Context(), "select 1").Scan(&one); err != nil {
			b.Fatal(err)
		}
		db.Close()
	}
}
