package engine

// A Limit bounds how many connections are open at once. Several Servers can
// share one. A nil Limit bounds nothing.
type Limit struct{ slots chan struct{} }

// NewLimit returns a Limit of n connections, n > 0.
func NewLimit(n int) *Limit { return &Limit{slots: make(chan struct{}, n)} }

// size returns the number of slots, or 0 without a limit.
func (l *Limit) size() int {
	if l == nil {
		return 0
	}
	return cap(l.slots)
}

// acquire reports whether there is room for one more connection, and takes it.
func (l *Limit) acquire() bool {
	if l == nil {
		return true
	}
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *Limit) release() {
	if l != nil {
		<-l.slots
	}
}
