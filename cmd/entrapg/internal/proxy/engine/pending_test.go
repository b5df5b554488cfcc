package engine

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPendingClients_SizeFollowsSlotsAndFiles(t *testing.T) {
	for _, test := range []struct{ slots, files, want int }{
		{0, 1 << 20, 1024}, // no limit
		{100, 1 << 20, 1024},
		{5000, 1 << 20, 5000},
		{5000, 20_000, 2500},
		{0, 1024, 128},
		{100, 4, 1},
	} {
		if got := maxPending(test.slots, test.files); got != test.want {
			t.Errorf("%d slots and %d files: %d, want %d", test.slots, test.files, got, test.want)
		}
	}
}

// TestPendingClients_KeepsClientsThatAuthenticateSoon counts the clients that are dropped
// before they leave, depending on the number of others that connect in the meantime.
func TestPendingClients_KeepsClientsThatAuthenticateSoon(t *testing.T) {
	const size, clients = 100, 1000
	for _, test := range []struct{ others, least, most int }{
		{0, 0, 0},
		{size / 10, 0, clients / 20},              // 1 % of them
		{size, clients / 2, clients * 7 / 10},     // 58 %
		{2 * size, clients * 8 / 10, clients - 1}, // 93 %; not all of them
	} {
		l := newPendingClients(size)
		var at time.Time
		add := func() *conn {
			at = at.Add(time.Millisecond)
			c := &conn{network: nowhere{}, begun: at}
			l.add(c)
			l.mu.Lock()
			l.dropped = 0 // they leave at once
			l.mu.Unlock()
			return c
		}
		for range 10 * size {
			add()
		}
		dropped := 0
		for range clients {
			c := add()
			for range test.others {
				add()
			}
			if c.dropped.Load() {
				dropped++
			} else {
				l.remove(c)
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

func TestPendingClients_BoundsDroppedClientsThatHaveNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4
		l := newPendingClients(size)
		var added []*conn
		for range 2 * size {
			c := &conn{network: nowhere{}}
			l.add(c)
			added = append(added, c)
		}
		last := &conn{network: nowhere{}}
		go l.add(last)
		synctest.Wait()
		if l.count() != size || l.dropped != size || slices.Contains(l.clients, last) {
			t.Errorf("%d clients are pending, and %d that were dropped have not left", l.count(), l.dropped)
		}
		for _, c := range added {
			l.remove(c)
			l.remove(c) // has no effect
		}
		synctest.Wait()
		if l.count() != 1 || l.dropped != 0 || l.clients[0] != last {
			t.Errorf("finally, %d clients are pending, and %d that were dropped have not left", l.count(), l.dropped)
		}
	})
}
