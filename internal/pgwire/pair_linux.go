package pgwire

import "time"

// A pair relays on a [loop]. Only the loop's goroutine uses it, except run, stop and
// close.
type pair struct {
	relay          *Relay
	loop           *loop
	client, server *endpoint
	over           bool        // the server has ended
	lingering      *time.Timer // nil until the client's time to close begins
	finished       bool
	done           chan struct{} // closed when the connections are closed
}

// newPair returns a pair for the connections of a Relay. It returns nil, and leaves
// them unchanged, if a connection is not a socket, if no file descriptor is free, or
// if ToServer is set, because its writes can block.
func newPair(r *Relay) mover {
	if r.ToServer != nil {
		return nil
	}
	p := &pair{relay: r, done: make(chan struct{})}
	if p.client = newEndpoint(p, r.Client, r.countReceived); p.client == nil {
		return nil
	}
	if p.server = newEndpoint(p, r.Server, r.countSent); p.server == nil {
		p.client.socket.Close()
		return nil
	}
	var err error
	if p.loop, err = acquireLoop(); err != nil {
		p.client.socket.Close()
		p.server.socket.Close()
		return nil
	}
	p.client.peer, p.server.peer = p.server, p.client
	for _, e := range []*endpoint{p.client, p.server} {
		e.base.replace(e.socket)
	}
	p.loop.post(p.begin)
	return p
}

func (p *pair) run()   { <-p.done }
func (p *pair) close() { p.loop.post(p.finish) }

func (p *pair) stop() {
	p.loop.post(func() {
		p.serverEnded()
		p.linger() // even if the client does not read
		p.update()
	})
}

// begin forwards the bytes that were read before the relay.
func (p *pair) begin() {
	fromServer, fromClient := p.relay.FromServer, p.relay.FromClient
	p.relay.FromServer, p.relay.FromClient = nil, nil
	p.server.begin(fromServer)
	p.client.begin(fromClient)
	p.update()
}

// update makes the loop wait for what the session needs next.
func (p *pair) update() {
	if p.over && !p.client.socket.pending() {
		if p.client.ended {
			p.finish()
		} else {
			p.linger()
		}
	}
	if p.finished {
		return
	}
	for _, e := range []*endpoint{p.client, p.server} {
		if err := p.loop.watch(e, e.wanted()); err != nil {
			p.finish() // otherwise it would never end
			return
		}
	}
}

// serverEnded closes the direction to the client.
func (p *pair) serverEnded() {
	if p.over || p.finished {
		return
	}
	p.over, p.client.discard = true, true
	p.relay.sendLast()
	p.server.close()
	closeWrite(p.client.conn)
}

// linger gives the client time to close its connection.
func (p *pair) linger() {
	if p.lingering == nil && !p.finished {
		p.lingering = time.AfterFunc(linger, p.close)
	}
}

// finish closes both connections.
func (p *pair) finish() {
	if p.finished {
		return
	}
	p.finished = true
	if p.lingering != nil {
		p.lingering.Stop()
	}
	p.server.close()
	p.client.close()
	p.loop.release()
	close(p.done)
}
