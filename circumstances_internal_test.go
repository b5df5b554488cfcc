package entrapg

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestCircumstances_AreForgottenWithTheConfiguration(t *testing.T) {
	config := &pgconn.Config{User: "app"}
	for range 2 { // a configuration with two hosts
		circumstances{guest: true}.remember(config)
	}
	if other := (&pgconn.Config{User: "app"}); !circumstancesOf(config).guest || circumstancesOf(other).guest {
		t.Error("the circumstances are not those of the configuration")
	}
	key := weak.Make(config)
	runtime.KeepAlive(config)
	for deadline := time.Now().Add(time.Minute); ; runtime.GC() {
		if _, known := remembered.Load(key); !known {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the circumstances remain")
		}
		runtime.Gosched()
	}
}
