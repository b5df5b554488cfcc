package entrapg

import (
	"runtime"
	"testing"
	"time"
)

func TestToken_ConnectorsDroppedWithoutCloseReleaseIdentity(t *testing.T) {
	credential := &oneHour{}
	for range 10 {
		NewConnector("host=127.0.0.1 user=app sslmode=disable", WithCredential(credential))
	}
	shared := func() bool {
		defaultDriver.identities.mu.Lock()
		defer defaultDriver.identities.mu.Unlock()
		for key := range defaultDriver.identities.identities {
			if key.credential == credential {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Minute); shared(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatal("the shared identity was not released")
		}
	}
}
