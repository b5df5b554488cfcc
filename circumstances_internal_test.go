package entrapg

import (
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestCircumstances_AreForgottenWithTheConfiguration(t *testing.T) {
	count := func() (n int) {
		remembered.Range(func(any, any) bool { n++; return true })
		return n
	}
	before := count()
	config := &pgconn.Config{User: "app"}
	for range 2 { // a configuration with two hosts
		circumstances{guest: true}.remember(config)
	}
	if other := (&pgconn.Config{User: "app"}); !circumstancesOf(config).guest || circumstancesOf(other).guest {
		t.Error("the circumstances are not those of the configuration")
	}
	if n := count(); n != before+1 {
		t.Errorf("%d entries, want %d", n, before+1)
	}
	runtime.KeepAlive(config)
	for deadline := time.Now().Add(time.Minute); count() > before; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the circumstances remain")
		}
		runtime.Gosched()
	}
}
