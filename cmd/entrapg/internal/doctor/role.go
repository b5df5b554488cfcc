package doctor

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/spelling"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/pgfail"
)

// A roleFix explains a failed login whose role is not mapped to the token's
// principal.
type roleFix struct {
	fixes
	kind pgfail.Kind
}

// groupID matches the group that a message of Azure's server names.
var groupID = regexp.MustCompile(`(?i)group ID ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b`)

// losesRole is the comment before SQL that moves a role to another identity.
const losesRole = "-- only to move that role to this identity; the identity that has it now loses it"

// explain adds the explanation and the fix to p. If a user is set, it names the principal
// of the token, and tries to log in as the token's own user.
func (f roleFix) explain(ctx context.Context, p *problem) {
	switch f.kind {
	case pgfail.ServerSuffix:
		p.Fix = f.set("user", f.user()[:strings.LastIndexByte(f.user(), '@')])
		return
	case pgfail.GuestName:
		p.Explanation = f.describePrincipal("") + "; the token does not contain the name of a guest's role, which contains #EXT#; " +
			"set user to that name"
		p.Fix = f.guest()
		return
	case pgfail.UnnamedIdentity:
		p.Fix = f.set("user", "ROLE")
		return
	case pgfail.NotInGroup:
		p.Explanation, p.Fix = f.membership(ctx, p.Error)
		return
	}
	tokenUser := f.tokenUser(ctx)
	if tokenUser == "" || tokenUser == f.user() {
		p.Fix = f.provision()
		return
	}
	p.Explanation = f.describePrincipal(tokenUser)
	if strings.EqualFold(tokenUser, f.user()) {
		p.Explanation += "; names are case-sensitive"
	}
	p.Fix = f.set("user", tokenUser)
	p.Fix[0] = "# to log in as this identity," + strings.TrimPrefix(p.Fix[0], "#") +
		": remove user, or set it to the role of this identity"
	works := f.probe(ctx, "user", tokenUser, nil) == nil
	if works {
		p.Explanation += fmt.Sprintf(". The login as %q works", tokenUser)
	} else {
		p.Fix = append(p.Fix, asAdministrator+", if this identity has no role yet", f.create(tokenUser))
	}
	if works && (strings.EqualFold(f.user(), tokenUser) || spelling.Closest(f.user(), []string{tokenUser}, "") == tokenUser) {
		return // misspelled
	}
	p.Fix = append(p.Fix, f.otherIdentity()...)
	switch f.kind {
	case pgfail.NotMapped: // the server does not tell whether the role exists
		if f.claims.Kind() == claims.User {
			const group = "-- or, if that is the name of a group that this user belongs to; as an Entra administrator, " +
				"in the database postgres"
			p.Fix = append(p.Fix, group, "select * from pgaadauth_create_principal("+quote.Literal(f.user())+", false, false);")
		}
		p.Fix = append(p.Fix,
			asAdministrator+"; only if this identity needs another role, with the name in user", f.create(f.user()))
	case pgfail.UserTokenForService, pgfail.ServiceTokenForUser:
		p.Fix = append(p.Fix, asAdministrator, losesRole, f.label(f.user()))
	default:
		p.Fix = append(p.Fix, asAdministrator, losesRole, f.rebind(f.user()))
	}
}

// tokenUser returns the token's own user if another one is set, or "".
func (f roleFix) tokenUser(ctx context.Context) string {
	if f.token.Claim != "" || f.login.Derive == nil || f.claims.Guest() { // a guest's token does not identify its role
		return ""
	}
	ctx, cancel := f.briefly(ctx)
	defer cancel()
	token, err := f.login.Derive(ctx)
	if err != nil || token.Lookup != nil {
		return ""
	}
	return token.User
}

// describePrincipal describes the principal of the token, and the user that is set.
func (f roleFix) describePrincipal(tokenUser string) string {
	text := "the token belongs to "
	if f.claims == nil {
		text += "an unknown identity"
	} else {
		text += "the " + f.principal()
	}
	if tokenUser != "" {
		text += fmt.Sprintf(" %q", tokenUser)
	}
	if oid := f.claims.Text("oid"); oid != "" {
		text += " (object ID " + oid + ")"
	}
	if f.token.Claim != "" {
		return text + fmt.Sprintf(", and user is %q, from the claim %s", f.user(), f.token.Claim)
	}
	return text + fmt.Sprintf(", and user is %q, from %s", f.user(), f.origin("user"))
}

// provision returns SQL that gives the token's identity the role of its name.
func (f roleFix) provision() []string {
	switch f.kind {
	case pgfail.OtherObjectID:
		return []string{
			asAdministrator,
			losesRole + ". The first false means that the role is not an administrator", f.rebind(f.user()),
		}
	case pgfail.UserTokenForService, pgfail.ServiceTokenForUser, pgfail.OtherPrincipal:
		return []string{asAdministrator, losesRole, f.label(f.user())}
	}
	lines := []string{asAdministrator, f.create(f.user())}
	if f.claims.Text("oid") == "" {
		return lines
	}
	lines = append(lines, "-- or, if the role exists already, with its privileges:")
	if f.kind == pgfail.NotMapped { // then it is an ordinary role
		return append(lines, f.label(f.user()))
	}
	return append(lines, f.rebind(f.user()))
}

// otherIdentity returns the lines that get a token of the identity that has the role.
func (f roleFix) otherIdentity() []string {
	text := fmt.Sprintf("# or, to log in as %s: as the identity that has this role", quote.Shell(f.user()))
	lines := []string{quote.Comment(text)}
	isUser, inEnvironment := f.claims.Kind() == claims.User, f.source() == "EnvironmentCredential"
	switch {
	case isUser && inEnvironment:
		return append(lines, quote.Export("AZURE_USERNAME", "NAME@DOMAIN"), quote.Export("AZURE_PASSWORD", "PASSWORD"))
	case isUser:
		return append(lines, f.logInAgain()...)
	case inEnvironment:
		return append(lines, quote.Export("AZURE_CLIENT_ID", "CLIENT_ID"), quote.Export("AZURE_CLIENT_SECRET", "SECRET"))
	case f.login.Identity.ClientID == "":
		return nil
	default:
		return append(lines, f.choose(f.login.Identity.ClientID, "CLIENT_ID")[1:]...)
	}
}

// membership explains a token that does not contain a group. A token contains the
// memberships at the time when it was issued.
func (f roleFix) membership(ctx context.Context, message string) (explanation string, fix []string) {
	group := "GROUP_ID"
	if match := groupID.FindStringSubmatch(message); match != nil {
		group = match[1]
	}
	explanation = f.describePrincipal("") + ", which is the role of a group that the token does not contain"
	fix = []string{
		"# shows whether the identity is a member",
		"az ad group member check --group " + group + " --member-id " + quote.Shell(f.claims.Text("oid")),
	}
	issued := ""
	if seconds, ok := f.claims["iat"].(float64); ok {
		issued = " at " + clock(time.Unix(int64(seconds), 0))
	}
	switch {
	case f.source() == "ManagedIdentityCredential":
		const sql = "-- at once, without the group: its own role; as an Entra administrator of the server, in the database postgres"
		explanation += ". A membership newer than the token shows in the next one. The token was issued" + issued +
			", and Azure returns the same one until it expires at " + clock(f.token.Expires) +
			"; log in again after that"
		if tokenUser := f.tokenUser(ctx); tokenUser != "" {
			fix = append(fix, sql, f.create(tokenUser))
			fix = append(fix, f.set("user", tokenUser)...)
		}
	case f.claims.Kind() != claims.User:
		explanation += ". The token was issued" + issued + ": a membership newer than that shows in the next token, " +
			"which each new process requests; Entra can take a few minutes"
		fix = append(fix, "# if the result is true, in a few minutes", f.commandLine("doctor"))
	default:
		explanation += ". The token was issued" + issued + ": a membership newer than that shows after a new login"
		fix = append(append(fix, "# if the result is true"), f.logInAgain()...)
	}
	return explanation, fix
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
