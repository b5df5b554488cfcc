package engine

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestLobby_SizeFollowsSlotsAndFiles(t *testing.T) {
	for _, test := range []struct{ slots, files, want int }{
		{0, 1 << 20, 1024}, // no limit
		{100, 1 << 20, 1024},
		{5000, 1 << 20, 5000},
		{5000, 20_000, 2500},
		{0, 1024, 128},
		{100, 4, 1},
	} {
		if got := lobbySize(test.slots, test.files); got != test.want {
			t.Errorf("%d slots and %d files: %d, want %d", test.slots, test.files, got, test.want)
		}
	}
}

// TestLobby_KeepsClientsThatAuthenticateSoon counts the clients that are dropped
// before they leave, depending on the number of others that connect in the meantime.
func TestLobby_KeepsClientsThatAuthenticateSoon(t *testing.T) {
	const size, clients = 100, 1000
	for _, test := range []struct{ others, least, most int }{
		{0, 0, 0},
		{size / 10, 0, clients / 20},              // 1 % of them
		{size, clients / 2, clients * 7 / 10},     // 58 %
		{2 * size, clients * 8 / 10, clients - 1}, // 93 %; not all of them
	} {
		l := newLobby(size)
		var at time.Time
		enter := func() *conn {
			at = at.Add(time.Millisecond)
			c := &conn{network: nowhere{}, begun: at}
			l.enter(c)
			l.mu.Lock()
			l.dropped = 0 // they leave at once
			l.mu.Unlock()
			return c
		}
		for range 10 * size {
			enter()
		}
		dropped := 0
		for range clients {
			c := enter()
			for range test.others {
				enter()
			}
			if c.dropped.Load() {
				dropped++
			} else {
				l.leave(c)
			}
		}
		if dropped < test.least || dropped > test.most {
			t.Errorf("%d of %d clients are dropped while %d others come, want %d to %d", dropped, clients, test.others, test.least, test.most)
		}
	}
}

// nowhere is a connection on which deadlines have no effect.
type nowhere struct{ net.Conn }

func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

func TestLobby_BoundsDroppedClientsThatHaveNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4
		l := newLobby(size)
		var entered []*conn
		for range 2 * size {
			c := &conn{network: nowhere{}}
			l.enter(c)
			entered = append(entered, c)
		}
		last := &conn{network: nowhere{}}
		go l.enter(last)
		synctest.Wait()
		if l.count() != size || l.dropped != size || slices.Contains(l.waiting, last) {
			t.Errorf("%d clients are in the lobby, and %d that were dropped have not left", l.count(), l.dropped)
		}
		for _, c := range entered {
			l.leave(c)
			l.leave(c) // has no effect
		}
		synctest.Wait()
		if l.count() != 1 || l.dropped != 0 || l.waiting[0] != last {
			t.Errorf("finally, %d clients are in the lobby, and %d that were dropped have not left", l.count(), l.dropped)
		}
	})
}
