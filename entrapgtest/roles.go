package entrapgtest

import "sync"

// roles are those that are mapped to principals. A primary and its replicas
// have them in common.
type roles struct {
	mu     sync.Mutex
	mapped map[string]mapping
}

// A mapping ties a role to a principal.
type mapping struct {
	objectID   string
	objectType string // user, group or service
	password   string // of the role in the real PostgreSQL
}

func (r *roles) find(name string) (mapping, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.mapped[name]
	return m, ok
}

func (r *roles) add(name string, m mapping) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mapped[name] = m
}
