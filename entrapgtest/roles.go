package entrapgtest

import "sync"

// roles are those that are mapped to principals. A primary and its replicas
// have them in common.
type roles struct {
	mu          sync.Mutex // guards what follows
	mapped      map[string]mapping
	provisioned bool // the database knows the mappings too, and better
}

// A mapping ties a role to a principal.
type mapping struct {
	objectID   string
	objectType string // user, group or service
	password   string // of the role in the real PostgreSQL
	admin      bool   // an Entra administrator
}

func (r *roles) find(name string) (m mapping, mapped, provisioned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, mapped = r.mapped[name]
	return m, mapped, r.provisioned
}

func (r *roles) add(name string, m mapping) (provisioned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mapped[name] = m
	return r.provisioned
}
