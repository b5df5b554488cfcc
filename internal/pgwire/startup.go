package pgwire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A Version is a version of the protocol, as encoded in startup messages.
type Version uint32

// Versions of the protocol.
const (
	Version30 Version = 3 << 16
	Version32 Version = 3<<16 | 2
)

// Major returns the number before the dot.
func (v Version) Major() int { return int(v >> 16) }

// Minor returns the number after the dot.
func (v Version) Minor() int { return int(v & 0xffff) }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// A Startup is the message that begins a session.
type Startup struct {
	Version    Version
	Parameters []Parameter // in order; a name can occur more than once
}

// A Parameter is a setting in a startup message.
type Parameter struct{ Name, Value string }

// optionPrefix begins the names of parameters that are options of the protocol.
const optionPrefix = "_pq_."

// parseStartup parses the part of a startup message that follows its version, as
// PostgreSQL does. It does not check that the message names a user.
func parseStartup(version Version, body []byte) (*Startup, *Error) {
	s := &Startup{Version: version}
	rest := body
	for len(rest) > 0 && rest[0] != 0 {
		name, after, _ := bytes.Cut(rest, []byte{0})
		if len(after) == 0 {
			break
		}
		var value []byte
		value, after, _ = bytes.Cut(after, []byte{0})
		if string(name) == "replication" && string(value) != "database" && !isBool(string(value)) {
			return nil, &Error{
				Code: "22023", Message: fmt.Sprintf(`invalid value for parameter "replication": "%s"`, value),
				Hint: `Valid values are: "false", 0, "true", 1, "database".`,
			}
		}
		s.Parameters = append(s.Parameters, Parameter{string(name), string(value)})
		rest = after
	}
	if len(rest) != 1 {
		return nil, protocolViolation("invalid startup packet layout: expected terminator as last byte")
	}
	return s, nil
}

// isBool reports whether PostgreSQL accepts s as a boolean.
func isBool(s string) bool {
	s = strings.ToLower(s)
	for _, word := range []string{"true", "false", "yes", "no", "on", "off", "0", "1"} {
		if s != "" && s != "o" && strings.HasPrefix(word, s) {
			return true
		}
	}
	return false
}

// Get returns the value of a parameter, or "" if it is not set. The last value
// applies.
func (s *Startup) Get(name string) string {
	value, _ := s.Lookup(name)
	return value
}

// Lookup returns the value of a parameter and whether it is set.
func (s *Startup) Lookup(name string) (value string, ok bool) {
	for _, p := range slices.Backward(s.Parameters) {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

// Set sets a parameter to a single value.
func (s *Startup) Set(name, value string) {
	s.Parameters = append(s.Without(func(p Parameter) bool { return p.Name == name }).Parameters, Parameter{name, value})
}

// Without returns a copy without the parameters for which drop reports true.
func (s *Startup) Without(drop func(Parameter) bool) *Startup {
	return &Startup{s.Version, slices.DeleteFunc(slices.Clone(s.Parameters), drop)}
}

// Options returns the names of the protocol's options that are requested.
func (s *Startup) Options() []string {
	var names []string
	for _, p := range s.Parameters {
		if IsOption(p) {
			names = append(names, p.Name)
		}
	}
	return names
}

// IsOption reports whether a parameter is an option of the protocol instead of a setting
// of the session.
func IsOption(p Parameter) bool { return strings.HasPrefix(p.Name, optionPrefix) }

// Encode returns the message as it is sent.
func (s *Startup) Encode() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(s.Version))
	for _, p := range s.Parameters {
		b = append(append(b, p.Name...), 0)
		b = append(append(b, p.Value...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}
