package token

// maxOutcomes bounds the number of keys that a source remembers. For an evicted
// key, one more login is attempted with the rejected token.
const maxOutcomes = 1000

// An outcome records whether the last token for a key was accepted.
type outcome struct {
	serial   uint64 // of the token
	accepted bool
	revoked  bool // rejected, after the same token had been accepted
}

// outcomes holds the last outcome for each key. The zero value is empty.
type outcomes map[any]outcome

// record replaces the outcome for key and returns the one before.
func (o *outcomes) record(key any, serial uint64, accepted bool) outcome {
	before, known := (*o)[key]
	if *o == nil {
		*o = outcomes{}
	}
	if !known && len(*o) >= maxOutcomes {
		for other := range *o {
			delete(*o, other)
			break
		}
	}
	revoked := !accepted && before.serial == serial && (before.accepted || before.revoked)
	(*o)[key] = outcome{serial, accepted, revoked}
	return before
}

// rejected reports whether the token was rejected for key.
func (o outcomes) rejected(key any, serial uint64) bool {
	last := o[key]
	return last.serial == serial && !last.accepted
}

// revoked reports whether the last token was accepted for key before it was
// rejected.
func (o outcomes) revoked(key any) bool { return o[key].revoked }
