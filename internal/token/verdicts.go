package token

// maxVerdicts bounds the number of keys that a source remembers. For an evicted
// key, one more login is attempted with the rejected token.
const maxVerdicts = 1000

// A verdict records whether the last token for a key was accepted.
type verdict struct {
	serial   uint64 // of the token
	accepted bool
	revoked  bool // rejected, after the same token had been accepted
}

// verdicts holds the last verdict for each key. The zero value is empty.
type verdicts map[any]verdict

// record replaces the verdict for key and returns the one before.
func (v *verdicts) record(key any, serial uint64, accepted bool) verdict {
	before, known := (*v)[key]
	if *v == nil {
		*v = verdicts{}
	}
	if !known && len(*v) >= maxVerdicts {
		for other := range *v {
			delete(*v, other)
			break
		}
	}
	revoked := !accepted && before.serial == serial && (before.accepted || before.revoked)
	(*v)[key] = verdict{serial, accepted, revoked}
	return before
}

// rejected reports whether the token was rejected for key.
func (v verdicts) rejected(key any, serial uint64) bool {
	last := v[key]
	return last.serial == serial && !last.accepted
}

// revoked reports whether the last token was accepted for key before it was
// rejected.
func (v verdicts) revoked(key any) bool { return v[key].revoked }
