package spelling_test

import (
	"testing"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/spelling"
)

func TestClosest_FindsMisspelledWordOnly(t *testing.T) {
	modes := []string{"require", "verify-ca", "verify-full"}
	for word, want := range map[string]string{
		"verifyfull": "verify-full", "verify_ca": "verify-ca", "requires": "require", "off": "other", "verbatim": "other", "": "other", "r": "other",
	} {
		if got := spelling.Closest(word, modes, "other"); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}
