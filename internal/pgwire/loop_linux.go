package pgwire

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A loop relays the bytes of many sessions in one goroutine, with epoll. With a goroutine for
// each direction, as in [copier], short queries take longer: a goroutine makes an unsuccessful
// read before it sleeps, and waking it takes more system calls. docs/performance.md has figures.
//
// A loop starts with its first session and ends with its last. There are at most half as many
// loops as processors, so that one call of epoll_wait returns the events of several sessions.
type loop struct {
	epoll     int
	wakeup    int                 // an eventfd, readable while something is posted
	endpoints map[int32]*endpoint // watched endpoints, by file descriptor

	arrived, decrypted *[bufferSize]byte // for the endpoint whose turn it is

	mu     sync.Mutex // guards the following
	posted []func()
	ended  bool

	sessions int // guarded by loops.mu
}

var loops struct {
	mu  sync.Mutex
	all []*loop
}

// acquireLoop adds a session to the loop with the fewest sessions, and returns the loop.
func acquireLoop() (*loop, error) {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	var best *loop
	for _, l := range loops.all {
		if best == nil || l.sessions < best.sessions {
			best = l
		}
	}
	if best == nil || best.sessions > 0 && len(loops.all) < runtime.GOMAXPROCS(0)/2 {
		l, err := newLoop()
		if err != nil {
			return nil, err
		}
		loops.all = append(loops.all, l)
		go l.run()
		best = l
	}
	best.sessions++
	return best, nil
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	e := &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wakeup)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wakeup, e); err != nil {
		unix.Close(epoll)
		unix.Close(wakeup)
		return nil, err
	}
	return &loop{
		epoll: epoll, wakeup: wakeup, endpoints: map[int32]*endpoint{},
		arrived: buffers.Get().(*[bufferSize]byte), decrypted: buffers.Get().(*[bufferSize]byte),
	}, nil
}

// release removes a session from the loop.
func (l *loop) release() {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	l.sessions--
}

// run handles events until the loop has no sessions.
func (l *loop) run() {
	var events [128]unix.EpollEvent
	for !l.end() {
		n, err := unix.EpollWait(l.epoll, events[:], -1)
		if err != nil { // EINTR
			continue
		}
		// An earlier event can have ended the session. Then the endpoint is no longer
		// watched. No other endpoint has its file descriptor yet, because runPosted
		// watches those of new sessions.
		for _, e := range events[:n] {
			if endpoint := l.endpoints[e.Fd]; endpoint != nil {
				endpoint.ready(e.Events)
			}
		}
		l.runPosted()

		// Without this call, the runtime's monitor takes the P in system calls once the
		// goroutine has run for 10 ms without being scheduled (retake in runtime/proc.go).
		// That cost a tenth of the throughput of short queries.
		runtime.Gosched()
	}
}

// end ends the loop if it has no sessions.
func (l *loop) end() bool {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	if l.sessions > 0 {
		return false
	}
	loops.all = slices.DeleteFunc(loops.all, func(other *loop) bool { return other == l })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	unix.Close(l.epoll)
	unix.Close(l.wakeup)
	buffers.Put(l.arrived)
	buffers.Put(l.decrypted)
	return true
}

// post calls f in the loop's goroutine, unless the loop has ended.
func (l *loop) post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if l.posted = append(l.posted, f); len(l.posted) == 1 {
		_, _ = unix.Write(l.wakeup, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

func (l *loop) runPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	if len(posted) > 0 {
		var counter [8]byte
		_, _ = unix.Read(l.wakeup, counter[:])
	}
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// watch changes the events of an endpoint that the loop waits for.
func (l *loop) watch(e *endpoint, events uint32) error {
	if events == e.watched {
		return nil
	}
	fd, op := e.socket.fd, unix.EPOLL_CTL_MOD
	switch {
	case e.watched == 0:
		op = unix.EPOLL_CTL_ADD
		l.endpoints[int32(fd)] = e
	case events == 0: // with MOD, EPOLLHUP would be reported repeatedly
		op = unix.EPOLL_CTL_DEL
		delete(l.endpoints, int32(fd))
	}
	e.watched = events
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}
