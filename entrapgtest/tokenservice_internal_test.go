package entrapgtest

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Clients name a resource before they authenticate.
func TestTokenService_RemembersLittleOfEachRequest(t *testing.T) {
	var s tokenService
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const long, short = 50, 2 * maxResources
	for i := range long {
		s.record(strconv.Itoa(i) + strings.Repeat("x", maxRequest))
	}
	for i := range short {
		request := strconv.Itoa(i) + strings.Repeat("x", maxRequest/8)
		s.record(request[:4])
	}
	if grown := int64(heap()) - int64(before); grown > 4<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
	if n := s.count(); n != long+short {
		t.Errorf("%d requests counted, want %d", n, long+short)
	}
	if n := s.countFor("0xxx"); n != 1 {
		t.Errorf("%d requests counted for a resource, want 1", n)
	}
	runtime.KeepAlive(&s)
}
