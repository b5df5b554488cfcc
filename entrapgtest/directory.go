package entrapgtest

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A directory contains the principals of a tenant, and the hosts that have its managed
// identities assigned.
type directory struct {
	seed seed // derives IDs and secrets

	mu         sync.Mutex // guards the following
	principals []*Principal
	hosts      []*Host
}

// add adds a principal, and creates its IDs and secrets.
func (d *directory) add(p *Principal) *Principal {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := 0 // so that principals with the same kind and name get different IDs
	for _, other := range d.principals {
		if other.Kind == p.Kind && other.Name == p.Name {
			same++
		}
	}
	names := []string{string(p.Kind), p.Name, strconv.Itoa(same)}
	p.ObjectID = d.seed.id("object", names...)
	switch p.Kind {
	case User, Guest:
		p.Password = d.seed.secret("password", names...)
	case ServicePrincipal:
		p.ClientSecret = d.seed.secret("secret", names...)
	}
	if p.Kind.objectType() == "service" {
		p.ClientID = d.seed.id("client", names...)
	}
	d.principals = append(d.principals, p)
	return p
}

// all returns the principals in the order in which they were added.
func (d *directory) all() []*Principal {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.principals)
}

// application returns the application with a client ID, or nil.
func (d *directory) application(clientID string) *Principal {
	return d.find(func(p *Principal) bool { return p.ClientID != "" && strings.EqualFold(p.ClientID, clientID) })
}

// user returns the user with a UPN or the guest with a mail address, or nil.
func (d *directory) user(name string) *Principal {
	return d.find(func(p *Principal) bool {
		_, mail := splitAccount(p.account)
		return p.Password != "" && (strings.EqualFold(p.Name, name) || p.Kind == Guest && strings.EqualFold(mail, name))
	})
}

func (d *directory) find(is func(*Principal) bool) *Principal {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.principals, is); i >= 0 {
		return d.principals[i]
	}
	return nil
}

// addHost adds a host, and creates its ID and secret.
func (d *directory) addHost(h *Host) *Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := 0 // so that hosts with the same identities get different secrets
	for _, other := range d.hosts {
		if slices.Equal(other.identities, h.identities) {
			same++
		}
	}
	names := []string{strconv.Itoa(same)}
	for _, p := range h.identities {
		names = append(names, p.ObjectID)
	}
	h.secret = d.seed.secret("host", names...)
	h.id = strconv.Itoa(len(d.hosts))
	d.hosts = append(d.hosts, h)
	return h
}

// hostWithSecret returns the host with a secret, or nil.
func (d *directory) hostWithSecret(secret string) *Host {
	return d.findHost(func(h *Host) bool { return sameSecret(secret, h.secret) })
}

// hostWithID returns the host with an ID, or nil.
func (d *directory) hostWithID(id string) *Host {
	return d.findHost(func(h *Host) bool { return h.id == id })
}

func (d *directory) findHost(is func(*Host) bool) *Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.hosts, is); i >= 0 {
		return d.hosts[i]
	}
	return nil
}
