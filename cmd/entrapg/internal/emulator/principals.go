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

// A wanted principal is one that a flag or a file asks for.
type wanted struct {
	kind, name string
	members    []string // of a group
	origin     string   // the flag, or the file and line
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

// role returns the name of the principal's role.
func (w wanted) role() string {
	switch w.kind {
	case "guest":
		return new(entrapgtest.Tenant).NewGuest(w.name).Name
	case "system":
		return new(entrapgtest.Tenant).NewSystemAssignedIdentity(resource(w.name)).Name
	default:
		return w.name
	}
}

// goesBy reports whether the principal is meant by a name.
func (w wanted) goesBy(name string) bool { return name == w.name || name == w.role() }

// fromFlag reads the value of a flag that asks for a principal.
func fromFlag(kind, value string) wanted {
	w := wanted{kind: kind, name: value, origin: "--" + kind}
	if kind == "group" {
		name, members, _ := strings.Cut(value, "=")
		w.name = name
		for member := range strings.SplitSeq(members, ",") {
			if member = strings.TrimSpace(member); member != "" {
				w.members = append(w.members, member)
			}
		}
	}
	return w
}

// readPrincipals reads a file with a principal on each line.
func readPrincipals(path string) ([]wanted, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--principals: %w", err)
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return nil, command.UsageError(fmt.Sprintf("--principals: %s is not a text file in UTF-8; save it as UTF-8", path))
	}
	var all []wanted
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))) {
		n++
		origin := fmt.Sprintf("%s, line %d", path, n)
		words, err := splitWords(string(line))
		if err != nil {
			return nil, command.UsageError(fmt.Sprintf("%s: %v", origin, err))
		}
		switch {
		case len(words) == 0:
			continue
		case kinds[words[0]] == nil:
			return nil, command.UsageError(fmt.Sprintf("%s: unknown kind %q; the kinds are admin, user, guest, group, identity, system and service",
				origin, words[0]))
		case len(words) == 1:
			return nil, command.UsageError(fmt.Sprintf("%s: missing name after %s", origin, words[0]))
		case len(words) > 2 && words[0] != "group":
			return nil, command.UsageError(fmt.Sprintf("%s: unexpected %q; quote a name that contains spaces", origin, words[2]))
		}
		all = append(all, wanted{kind: words[0], name: words[1], members: words[2:], origin: origin})
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

// completePrincipals adds those that each emulator has, and reports what cannot be
// created.
func completePrincipals(all []wanted) ([]wanted, error) {
	loginable := slices.ContainsFunc(all, func(w wanted) bool { return w.kind != "admin" && w.kind != "group" })
	if !loginable {
		all = append(all, wanted{kind: "identity", name: "shop-api", origin: "the default identity"})
		for i, w := range all {
			if w.kind == "group" && len(w.members) == 0 {
				all[i].members = []string{"shop-api"}
			}
		}
	}
	if !slices.ContainsFunc(all, func(w wanted) bool { return w.kind == "admin" }) {
		all = append(all, wanted{kind: "admin", name: "db-admin", origin: "the default administrator"})
	}
	for i, w := range all {
		if err := w.check(); err != nil {
			return nil, command.UsageError(fmt.Sprintf("%s: %v", w.origin, err))
		}
		for _, earlier := range all[:i] {
			if earlier.role() == w.role() || earlier.kind == w.kind && strings.EqualFold(earlier.role(), w.role()) {
				return nil, command.UsageError(fmt.Sprintf("%s: %q has the same role name as %q of %s; rename one of them",
					w.origin, w.name, earlier.name, earlier.origin))
			}
		}
	}
	for _, w := range all {
		for _, member := range w.members {
			i := slices.IndexFunc(all, func(w wanted) bool { return w.goesBy(member) })
			switch {
			case i < 0:
				return nil, command.UsageError(fmt.Sprintf("%s: unknown member %q of group %q; add a principal of this name", w.origin, member, w.name))
			case all[i].kind == "group":
				return nil, command.UsageError(fmt.Sprintf("%s: member %q of group %q is a group; list its members", w.origin, member, w.name))
			}
		}
	}
	return all, nil
}

func (w wanted) check() error {
	switch role := w.role(); {
	case w.name == "":
		return errors.New("missing name")
	case strings.ContainsFunc(w.name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q contains characters that do not print", w.name)
	case strings.TrimSpace(w.name) != w.name:
		return fmt.Errorf("%q begins or ends with white space", w.name)
	case w.kind == "guest" && !strings.Contains(w.name, "@"):
		return fmt.Errorf("%q is not an email address", w.name)
	case w.kind == "system" && !isResource(resource(w.name)):
		return fmt.Errorf("%q is not a resource ID; it must be like Microsoft.Web/sites/shop", w.name)
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

// A resident is a principal that the emulator has created.
type resident struct {
	*entrapgtest.Principal
	wanted
}

func (r resident) admin() bool { return r.kind == "admin" }

// managed reports whether a host provides the principal's tokens.
func (r resident) managed() bool {
	return r.Kind == entrapgtest.UserAssignedIdentity || r.Kind == entrapgtest.SystemAssignedIdentity
}

// secrets are what a program needs to log in as the principal. Those of an
// administrator are not for everybody who reads them.
func (r resident) secrets() []variable {
	var secrets []variable
	if r.ClientID != "" {
		secrets = append(secrets, variable{"AZURE_CLIENT_ID", r.ClientID})
	}
	if r.ClientSecret != "" {
		secrets = append(secrets, variable{"AZURE_CLIENT_SECRET", r.ClientSecret})
	}
	if r.Password != "" && !r.admin() {
		secrets = append(secrets, variable{"AZURE_PASSWORD", r.Password})
	}
	return secrets
}

// settle creates principals and puts them into their groups.
func settle(t *entrapgtest.Tenant, all []wanted) []resident {
	var residents []resident
	for _, w := range all {
		residents = append(residents, resident{kinds[w.kind](t, w.name), w})
	}
	for _, group := range residents {
		for _, name := range group.members {
			member := residents[slices.IndexFunc(residents, func(r resident) bool { return r.goesBy(name) })]
			if !slices.Contains(member.Groups, group.Principal) {
				member.Groups = append(member.Groups, group.Principal)
			}
		}
	}
	return residents
}
