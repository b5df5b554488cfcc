package pgwire_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/entrapg/entrapg/internal/pgwire"
)

func TestRedact_RemovesPiecesOf32BytesAndLonger(t *testing.T) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	random := make([]byte, 2000)
	for i := range random {
		random[i] = letters[rand.N(len(letters))]
	}
	secret := string(random)
	periodic := strings.Repeat("0123456789abcdef", 100)
	for _, test := range []struct{ name, secret, text, want string }{
		{"whole", secret, "who is " + secret + "?", "who is [token]?"},
		{"whole, and no more", secret, secret, "[token]"},
		{"cut off", secret, "who is " + secret[:1500] + "…", "who is [token]…"},
		{"its end", secret, "… " + secret[500:], "… [token]"},
		{"32 bytes", secret, "… " + secret[99:131] + "?", "… [token]?"},
		{"31 bytes", secret, "… " + secret[99:130] + "?", "… " + secret[99:130] + "?"},
		{"two pieces", secret, secret[:40] + " and " + secret[77:117], "[token] and [token]"},
		{"pieces side by side", secret, secret[:40] + secret[77:117], "[token][token]"},
		{"overlapping pieces", secret, secret[:40] + secret[20:60] + secret[:32], "[token][token][token]"},
		{"periodic", periodic, "a " + periodic + " b", "a [token] b"},
		{"short secret", "correct horse", "a correct horse b", "a [token] b"},
		{"very short secret", "t", "a text", "a text"},
		{"nothing", secret, "nothing", "nothing"},
		{"empty", secret, "", ""},
	} {
		for offset := range 17 { // relative to the blocks that are searched for
			prefix := strings.Repeat("\x01", offset)
			if got := string(pgwire.Redact([]byte(prefix+test.text), test.secret)); got != prefix+test.want {
				t.Errorf("%s at %d:\ngot  %q\nwant %q", test.name, offset, got, prefix+test.want)
			}
		}
	}
}
