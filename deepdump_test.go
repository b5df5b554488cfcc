package entrapg_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// A deepDump visits every string and byte slice that reflection can reach from a value: through
// pointers, interfaces, maps, slices and unexported fields, as spew.Dump does. Functions are opaque.
type deepDump struct {
	// text is called with each string and byte slice, and with the path to it.
	text func(path, text string)
	// spare is called with the bytes between a slice's length and its capacity. It can be nil.
	spare func(path, text string)

	path []string
	seen map[visit]bool
}

// A visit identifies a visited value. The types of a struct and its first field differ.
type visit struct {
	pointer uintptr
	length  int
	typ     reflect.Type
}

func (d *deepDump) add(root string, v any) {
	if d.seen == nil {
		d.seen = map[visit]bool{}
	}
	d.within(root, reflect.ValueOf(v))
}

func (d *deepDump) within(name string, v reflect.Value) {
	d.path = append(d.path, name)
	d.walk(v)
	d.path = d.path[:len(d.path)-1]
}

func (d *deepDump) walk(v reflect.Value) {
	if !v.IsValid() || opaqueType(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.report(d.text, v.String())
	case reflect.Interface:
		d.walk(v.Elem())
	case reflect.Pointer:
		if d.first(v, 0) {
			d.walk(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			d.within("."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Map:
		if d.first(v, 0) {
			for entries := v.MapRange(); entries.Next(); {
				d.within("[key]", entries.Key())
				d.within(fmt.Sprintf("[%v]", entries.Key()), entries.Value())
			}
		}
	case reflect.Slice:
		switch {
		case v.Cap() == 0 || !d.first(v, v.Len()):
		case v.Type().Elem().Kind() == reflect.Uint8:
			d.report(d.text, string(v.Bytes()))
			if d.spare != nil && v.Cap() > v.Len() {
				d.report(d.spare, string(v.Slice3(v.Len(), v.Cap(), v.Cap()).Bytes()))
			}
		default:
			d.elements(v)
		}
	case reflect.Array:
		d.elements(v)
	}
}

func (d *deepDump) elements(v reflect.Value) {
	switch kind := v.Type().Elem().Kind(); {
	case kind == reflect.Uint8: // an array, whose Bytes would have to be addressable
		text := make([]byte, v.Len())
		for i := range text {
			text[i] = byte(v.Index(i).Uint())
		}
		d.report(d.text, string(text))
	case kind >= reflect.Bool && kind <= reflect.Complex128: // which hold no text
	default:
		for i := range v.Len() {
			d.within(fmt.Sprintf("[%d]", i), v.Index(i))
		}
	}
}

// first reports whether this is the first visit to the value that v points to.
func (d *deepDump) first(v reflect.Value, length int) bool {
	key := visit{v.Pointer(), length, v.Type()}
	if v.IsNil() || d.seen[key] {
		return false
	}
	d.seen[key] = true
	return true
}

func (d *deepDump) report(to func(path, text string), text string) {
	if len(text) >= tokenPiece {
		to(strings.Join(d.path, ""), text)
	}
}

// opaqueType reports whether values of a type are not visited: those that cannot contain a token,
// that other goroutines change, or that, like the buffers of crypto/tls, hold what the peer sent.
func opaqueType(t reflect.Type) bool {
	switch path := t.PkgPath(); {
	case path == "net", path == "context", path == "reflect", path == "testing", path == "time", path == "os":
		return true
	case strings.HasPrefix(path, "crypto/"), strings.HasPrefix(path, "internal/"), strings.HasPrefix(path, "runtime"):
		return true
	}
	return t == reflect.TypeFor[pgtype.Map]()
}

// tokenPiece is the shortest piece of a token that counts as a leak, in characters.
const tokenPiece = 32

// tokenPieces finds pieces of tokens in text: plain, and in the encodings of fmt and encoding/json.
type tokenPieces struct {
	forms   []tokenForm
	windows map[[tokenBlock]byte]bool
}

// A tokenForm is a token in some encoding. A piece of tokenPiece characters is at least length
// characters long in it.
type tokenForm struct {
	text   string
	length int
}

// tokenBlock is half a piece, so that every piece in a text contains one whole block of it.
const tokenBlock = tokenPiece / 2

func newTokenPieces(tokens ...string) *tokenPieces {
	p := &tokenPieces{windows: map[[tokenBlock]byte]bool{}}
	for _, token := range tokens {
		raw := []byte(token)
		p.add(token, tokenPiece)
		p.add(fmt.Sprintf("%x", raw), 2*tokenPiece)
		p.add(fmt.Sprintf("%X", raw), 2*tokenPiece)
		p.add(strings.Trim(fmt.Sprintf("%d", raw), "[]"), len("100 ")*tokenPiece)
		p.add(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", raw), "[]byte{"), "}"), len("0x20, ")*tokenPiece)
		for i := range 3 { // for each offset of the token in the encoded text
			p.add(base64.StdEncoding.EncodeToString(raw[i:]), tokenPiece*4/3+1)
			p.add(base64.URLEncoding.EncodeToString(raw[i:]), tokenPiece*4/3+1)
		}
	}
	return p
}

func (p *tokenPieces) add(text string, length int) {
	p.forms = append(p.forms, tokenForm{text, length})
	for i := range len(text) - tokenBlock + 1 {
		p.windows[[tokenBlock]byte([]byte(text[i:i+tokenBlock]))] = true
	}
}

// find reports whether text contains a piece of a token.
func (p *tokenPieces) find(text string) bool {
	var block [tokenBlock]byte
	for i := 0; i+tokenBlock <= len(text); i += tokenBlock {
		if copy(block[:], text[i:]); p.windows[block] && p.around(text, i) {
			return true
		}
	}
	return false
}

// around reports whether a piece covers the block of text at i.
func (p *tokenPieces) around(text string, i int) bool {
	for _, form := range p.forms {
		for next := 0; ; next++ {
			at := strings.Index(form.text[next:], text[i:i+tokenBlock])
			if at < 0 {
				break
			}
			next += at
			before, after := next, next+tokenBlock
			for n := i; n > 0 && before > 0 && text[n-1] == form.text[before-1]; n-- {
				before--
			}
			for n := i + tokenBlock; n < len(text) && after < len(form.text) && text[n] == form.text[after]; n++ {
				after++
			}
			if after-before >= form.length {
				return true
			}
		}
	}
	return false
}

// webTokenOf returns a token of n random characters of JSON Web Tokens.
func webTokenOf(n int) string {
	raw := make([]byte, n)
	rand.Read(raw)
	token := []byte("eyJ" + base64.RawURLEncoding.EncodeToString(raw))[:n]
	token[n/10], token[n-n/6] = '.', '.'
	return string(token)
}

func TestTokenPieces_AreFoundAtAnyDepth(t *testing.T) {
	token := webTokenOf(2000)
	pieces := newTokenPieces(token)
	type inner struct {
		secret []byte
		fixed  [40]byte
	}
	type outer struct {
		next any
		byID map[int]*inner
		self *outer
	}
	fixed := [40]byte([]byte(token[900:940]))
	short := []byte(token[900 : 900+31])
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"string":       {"who is " + token[7:7+32], ""},
		"short":        {"who is " + token[7:7+31], "-"},
		"bytes":        {&outer{byID: map[int]*inner{3: {secret: []byte(token[1900:1940])}}}, ".byID[3].secret"},
		"array":        {outer{next: &outer{next: inner{fixed: fixed}}}, ".next.next.fixed"},
		"map key":      {map[string]int{token: 1}, "[key]"},
		"spare":        {[]any{append([]byte(nil), token[:100]...)[:10]}, "spare[0]"},
		"function":     {func() string { return token }, "-"},
		"nothing":      {nil, "-"},
		"decimal":      {fmt.Sprintf("%v", []byte(token[50:100])), ""},
		"Go's syntax":  {fmt.Sprintf("%#v", []byte(token[50:100])), ""},
		"base64":       {base64.StdEncoding.EncodeToString([]byte("what " + token[51:])), ""},
		"hexadecimal":  {fmt.Sprintf("%X", token[50:100]), ""},
		"Go's, 31":     {fmt.Sprintf("%#v %v %x", short, short, short), "-"},
		"base64, 31":   {base64.StdEncoding.EncodeToString(short), "-"},
		"its own loop": {func() *outer { o := &outer{next: token}; o.self = o; return o }(), ".next"},
	} {
		got := "-"
		d := &deepDump{
			text: func(path, text string) {
				if pieces.find(text) {
					got = path
				}
			},
			spare: func(path, text string) {
				if pieces.find(text) {
					got = "spare" + path
				}
			},
		}
		if d.add("", test.value); got != test.want {
			t.Errorf("%s: found at %q, want %q", name, got, test.want)
		}
	}
}
