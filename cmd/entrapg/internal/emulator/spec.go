package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A spec describes a principal, as a flag or a file sets it.
type spec struct {
	kind, name string
	members    []string // of a group
	origin     string   // the flag, or the file and line
}

// role returns the name of the principal's role.
func (s spec) role() string {
	switch s.kind {
	case "guest":
		return new(entrapgtest.Tenant).NewGuest(s.name).Name
	case "system":
		return new(entrapgtest.Tenant).NewSystemAssignedIdentity(resource(s.name)).Name
	default:
		return s.name
	}
}

// matches reports whether a name is that of the principal or of its role.
func (s spec) matches(name string) bool { return name == s.name || name == s.role() }

// fromFlag reads the value of the flag for a kind of principal.
func fromFlag(kind, value string) spec {
	s := spec{kind: kind, name: value, origin: "--" + kind}
	if kind == "group" {
		name, members, _ := strings.Cut(value, "=")
		s.name = name
		for member := range strings.SplitSeq(members, ",") {
			if member = strings.TrimSpace(member); member != "" {
				s.members = append(s.members, member)
			}
		}
	}
	return s
}

// readPrincipals reads a file with a principal on each line.
func readPrincipals(path string) ([]spec, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--principals: %w", err)
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return nil, command.UsageError(fmt.Sprintf("--principals: %s is not a text file in UTF-8; save it as UTF-8", path))
	}
	var all []spec
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))) {
		n++
		origin := fmt.Sprintf("--principals: %s, line %d", path, n)
		words, err := splitWords(string(line))
		if err != nil {
			return nil, command.UsageError(fmt.Sprintf("%s: %v", origin, err))
		}
		switch {
		case len(words) == 0:
			continue
		case kinds[words[0]] == nil:
			return nil, command.UsageError(fmt.Sprintf(
				"%s: unknown kind %q; the kinds are admin, user, guest, group, identity, system and service",
				origin, words[0]))
		case len(words) == 1:
			return nil, command.UsageError(fmt.Sprintf("%s: missing name after %s", origin, words[0]))
		case len(words) > 2 && words[0] != "group":
			return nil, command.UsageError(fmt.Sprintf("%s: unexpected %q; quote a name that contains spaces", origin, words[2]))
		}
		all = append(all, spec{kind: words[0], name: words[1], members: words[2:], origin: origin})
	}
	return all, nil
}

// splitWords splits a line at white space. Words in quotes, single or double,
// contain white space, and a word that begins with # begins a comment.
func splitWords(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			return words, nil
		}
		if quote := line[0]; quote == '"' || quote == '\'' {
			word, rest, closed := strings.Cut(line[1:], string(quote))
			if !closed {
				return nil, fmt.Errorf("missing %c at the end of a name", quote)
			}
			if rest != "" && !unicode.IsSpace(rune(rest[0])) {
				return nil, fmt.Errorf("unexpected %q after a quoted name", strings.TrimSpace(rest))
			}
			words, line = append(words, word), rest
			continue
		}
		end := strings.IndexFunc(line, unicode.IsSpace)
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
}

// completeSpecs adds the defaults, and returns an error for principals that cannot be
// created.
func completeSpecs(all []spec) ([]spec, error) {
	someLogin := slices.ContainsFunc(all, func(s spec) bool { return s.kind != "admin" && s.kind != "group" })
	if !someLogin {
		all = append(all, spec{kind: "identity", name: "shop-api", origin: "the default identity"})
		for i, s := range all {
			if s.kind == "group" && len(s.members) == 0 {
				all[i].members = []string{"shop-api"}
			}
		}
	}
	if !slices.ContainsFunc(all, func(s spec) bool { return s.kind == "admin" }) {
		all = append(all, spec{kind: "admin", name: "db-admin", origin: "the default administrator"})
	}
	for i, s := range all {
		if err := s.check(); err != nil {
			return nil, command.UsageError(fmt.Sprintf("%s: %v", s.origin, err))
		}
		for _, earlier := range all[:i] {
			if earlier.role() == s.role() || earlier.kind == s.kind && strings.EqualFold(earlier.role(), s.role()) {
				return nil, command.UsageError(fmt.Sprintf("%s: %q has the same role name as %q of %s; rename one of them",
					s.origin, s.name, earlier.name, earlier.origin))
			}
		}
	}
	for _, s := range all {
		for _, member := range s.members {
			i := slices.IndexFunc(all, func(s spec) bool { return s.matches(member) })
			switch {
			case i < 0:
				return nil, command.UsageError(fmt.Sprintf("%s: unknown member %q of group %q; add a principal of this name",
					s.origin, member, s.name))
			case all[i].kind == "group":
				return nil, command.UsageError(fmt.Sprintf("%s: member %q of group %q is a group; list its members",
					s.origin, member, s.name))
			}
		}
	}
	return all, nil
}

func (s spec) check() error {
	switch role := s.role(); {
	case s.name == "":
		return errors.New("missing name")
	case strings.ContainsFunc(s.name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q contains characters that do not print", s.name)
	case strings.TrimSpace(s.name) != s.name:
		return fmt.Errorf("%q begins or ends with white space", s.name)
	case s.kind == "user" && !strings.Contains(s.name, "@"):
		return fmt.Errorf("%q is not a user principal name; it must be like ann@contoso.example", s.name)
	case s.kind == "guest" && !strings.Contains(s.name, "@"):
		return fmt.Errorf("%q is not an email address", s.name)
	case s.kind == "system" && !isResource(resource(s.name)):
		return fmt.Errorf("%q is not a resource ID; it must be like Microsoft.Web/sites/shop", s.name)
	case len(role) > 63:
		return fmt.Errorf("role name %q has %d bytes; PostgreSQL accepts 63", role, len(role))
	case strings.HasPrefix(role, "pg_") || role == "public" || role == "none" || role == "azure_pg_admin":
		return fmt.Errorf("PostgreSQL or Azure reserves the role name %q", role)
	}
	return nil
}

// isResource reports whether a name is PROVIDER/TYPE/NAME, with more pairs of TYPE
// and NAME for resources within others.
func isResource(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) >= 3 && len(parts)%2 == 1 && strings.Contains(parts[0], ".") && !slices.Contains(parts, "")
}

// kinds of principals, and what makes one.
var kinds = map[string]func(*entrapgtest.Tenant, string) *entrapgtest.Principal{
	"admin": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		if strings.Contains(name, "@") {
			return t.NewUser(name)
		}
		return t.NewUserAssignedIdentity(name)
	},
	"user":     func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewUser(name) },
	"guest":    func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal { return t.NewGuest(name) },
	"group":    (*entrapgtest.Tenant).NewGroup,
	"identity": (*entrapgtest.Tenant).NewUserAssignedIdentity,
	"system": func(t *entrapgtest.Tenant, name string) *entrapgtest.Principal {
		return t.NewSystemAssignedIdentity(resource(name))
	},
	"service": (*entrapgtest.Tenant).NewServicePrincipal,
}

// resource returns the part of a resource ID after /providers/.
func resource(id string) string {
	if i := strings.LastIndex(strings.ToLower(id), "/providers/"); i >= 0 {
		return id[i+len("/providers/"):]
	}
	return id
}
