package entrapg

import (
	"sync"
	"time"
)

// tokenSources are the token sources that connectors share: one for each
// credential and scope, for as long as somebody uses it. The driver owns them.
type tokenSources struct {
	mu      sync.Mutex // guards what follows, and the users of each source
	sources map[sourceKey]*tokenSource
}

// A sourceKey tells token sources apart.
type sourceKey struct {
	credential any // what connectors have in common, comparable; nil where nothing is shared
	scope      string
	management string // the scope of tokens that help to name others
}

// join returns the source for key, which asks credential unless it is there
// already. It stays until all who have joined have left.
func (s *tokenSources) join(key sourceKey, credential *lazyCredential) *tokenSource {
	s.mu.Lock()
	defer s.mu.Unlock()
	source := s.sources[key]
	if source == nil {
		for other, source := range s.sources {
			if other.credential == key.credential { // for another scope
				credential = source.credential
			}
		}
		source = &tokenSource{key: key, credential: credential, now: time.Now}
	}
	if key.credential != nil {
		if s.sources == nil {
			s.sources = map[sourceKey]*tokenSource{}
		}
		s.sources[key] = source
	}
	source.users++
	return source
}

// leave ends one use of source. The last one ends the source.
func (s *tokenSources) leave(source *tokenSource) {
	s.mu.Lock()
	source.users--
	last := source.users == 0
	if last && source.key.credential != nil {
		delete(s.sources, source.key)
	}
	s.mu.Unlock()
	if last {
		source.close()
	}
}
