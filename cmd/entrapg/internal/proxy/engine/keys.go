package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// keys are the cancel keys of the sessions of a Server. A client gets the key of its
// server, so that programs that compare process IDs see the real ones. If two servers
// have issued the same key, the second client gets another secret.
type keys struct {
	mu    sync.Mutex
	byPID map[uint32][]*key
}

// A key is the cancel key that a client sends, and the key and the address to which a
// cancel request is forwarded.
type key struct {
	shown  pgwire.CancelRequest // to the client
	real   pgwire.CancelRequest // of the server
	server pgwire.Canceler

	waiting atomic.Bool   // whether a request is waiting to be sent
	turn    chan struct{} // holds a value while a request is sent
}

// add registers the key of a session. It returns nil if the session has none.
func (k *keys) add(s *pgwire.Session) *key {
	if len(s.Cancel.Key) == 0 {
		return nil
	}
	added := &key{shown: s.Cancel, real: s.Cancel, server: s.Canceler, turn: make(chan struct{}, 1)}
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.find(added.shown) != nil {
		added.shown.Key = make([]byte, len(s.Cancel.Key))
		rand.Read(added.shown.Key)
	}
	if k.byPID == nil {
		k.byPID = map[uint32][]*key{}
	}
	k.byPID[added.shown.PID] = append(k.byPID[added.shown.PID], added)
	return added
}

// lookUp returns the key of a request, or nil.
func (k *keys) lookUp(request pgwire.CancelRequest) *key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.find(request)
}

// find compares in constant time, so that a secret cannot be guessed byte by byte.
func (k *keys) find(request pgwire.CancelRequest) *key {
	var found *key
	for _, candidate := range k.byPID[request.PID] {
		if subtle.ConstantTimeCompare(candidate.shown.Key, request.Key) == 1 {
			found = candidate
		}
	}
	return found
}

func (k *keys) remove(removed *key) {
	if removed == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	left := slices.DeleteFunc(k.byPID[removed.shown.PID], func(candidate *key) bool { return candidate == removed })
	if len(left) == 0 {
		delete(k.byPID, removed.shown.PID)
	} else {
		k.byPID[removed.shown.PID] = left
	}
}

// show replaces the server's key in answer by the key that is shown to the client.
func (k *key) show(answer []byte) {
	if k == nil || bytes.Equal(k.shown.Key, k.real.Key) {
		return
	}
	encode := func(request pgwire.CancelRequest) []byte {
		b := binary.BigEndian.AppendUint32([]byte{'K'}, uint32(8+len(request.Key)))
		return append(binary.BigEndian.AppendUint32(b, request.PID), request.Key...)
	}
	if at := bytes.Index(answer, encode(k.real)); at >= 0 {
		copy(answer[at:], encode(k.shown))
	}
}
