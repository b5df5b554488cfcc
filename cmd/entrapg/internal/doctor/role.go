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

// A roleAdvice explains a failed login whose role is not mapped to the token's
// principal.
type roleAdvice struct {
	*examination
	kind pgfail.Kind
}

// groupID matches the group that a message of Azure's server names.
var groupID = regexp.MustCompile(`(?i)group ID ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b`)

// losesRole is the comment before SQL that moves a role to another identity.
const losesRole = "-- only to move that role to this identity; the identity that has it now loses it"

// explain adds the explanation and the fix to t. If a user is set, it names the principal
// of the token, and tries to log in as the token's own user.
func (a roleAdvice) explain(ctx context.Context, t *trouble) {
	r := remedies{a.examination}
	switch a.kind {
	case pgfail.ServerSuffix:
		t.Fix = r.set("user", a.user()[:strings.LastIndexByte(a.user(), '@')])
		return
	case pgfail.GuestName:
		t.Explanation, t.Fix = a.describePrincipal("")+". "+claims.GuestRole, r.guest()
		return
	case pgfail.UnnamedIdentity:
		t.Fix = r.set("user", "ROLE")
		return
	case pgfail.NotInGroup:
		t.Explanation, t.Fix = a.membership(ctx, t.Error)
		return
	}
	tokenUser := a.tokenUser(ctx)
	if tokenUser == "" || tokenUser == a.user() {
		t.Fix = a.provision()
		return
	}
	t.Explanation = a.describePrincipal(tokenUser)
	if strings.EqualFold(tokenUser, a.user()) {
		t.Explanation += "; names are case-sensitive"
	}
	t.Fix = r.set("user", tokenUser)
	t.Fix[0] = "# to log in as this identity," + strings.TrimPrefix(t.Fix[0], "#") +
		": remove user, or set it to the role of this identity"
	works := a.probe(ctx, "user", tokenUser, nil) == nil
	if works {
		t.Explanation += fmt.Sprintf(". The login as %q works", tokenUser)
	} else {
		t.Fix = append(t.Fix, asAdministrator+", if this identity has no role yet", r.create(tokenUser))
	}
	if works && (strings.EqualFold(a.user(), tokenUser) || spelling.Closest(a.user(), []string{tokenUser}, "") == tokenUser) {
		return // misspelled
	}
	t.Fix = append(t.Fix, a.otherIdentity()...)
	switch a.kind {
	case pgfail.NotMapped: // the server does not tell whether the role exists
		if a.claims.Kind() == claims.Person {
			const group = "-- or, if that is the name of a group that this user belongs to; as an Entra administrator, in the database postgres"
			t.Fix = append(t.Fix, group, "select * from pgaadauth_create_principal("+quote.Literal(a.user())+", false, false);")
		}
		t.Fix = append(t.Fix,
			asAdministrator+"; only if this identity needs another role, with the name in user", r.create(a.user()))
	case pgfail.UserTokenForService, pgfail.ServiceTokenForUser:
		t.Fix = append(t.Fix, asAdministrator, losesRole, r.label(a.user()))
	default:
		t.Fix = append(t.Fix, asAdministrator, losesRole, r.rebind(a.user()))
	}
}

// tokenUser returns the token's own user if another one is set, or "".
func (a roleAdvice) tokenUser(ctx context.Context) string {
	if a.token.Claim != "" || a.login.Derive == nil || a.claims.Guest() { // a guest's token does not identify its role
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	token, err := a.login.Derive(ctx)
	if err != nil || token.Lookup != nil {
		return ""
	}
	return token.User
}

// describePrincipal describes the principal of the token, and the user that is set.
func (a roleAdvice) describePrincipal(tokenUser string) string {
	text := "the token belongs to "
	if a.claims == nil {
		text += "an unknown identity"
	} else {
		text += "the " + a.principal()
	}
	if tokenUser != "" {
		text += fmt.Sprintf(" %q", tokenUser)
	}
	if oid := a.claims.Text("oid"); oid != "" {
		text += " (object ID " + oid + ")"
	}
	if a.token.Claim != "" {
		return text + fmt.Sprintf(", and user is %q, from the claim %s", a.user(), a.token.Claim)
	}
	return text + fmt.Sprintf(", and user is %q, from %s", a.user(), a.origin("user"))
}

// provision returns SQL that gives the token's identity the role of its name.
func (a roleAdvice) provision() []string {
	r := remedies{a.examination}
	switch a.kind {
	case pgfail.OtherObjectID:
		return []string{
			asAdministrator,
			losesRole + ". The first false means that the role is not an administrator", r.rebind(a.user()),
		}
	case pgfail.UserTokenForService, pgfail.ServiceTokenForUser, pgfail.OtherPrincipal:
		return []string{asAdministrator, losesRole, r.label(a.user())}
	}
	lines := []string{asAdministrator, r.create(a.user())}
	if a.claims.Text("oid") == "" {
		return lines
	}
	lines = append(lines, "-- or, if the role exists already, with its privileges:")
	if a.kind == pgfail.NotMapped { // then it is an ordinary role
		return append(lines, r.label(a.user()))
	}
	return append(lines, r.rebind(a.user()))
}

// otherIdentity returns the lines that get a token of the identity that has the role.
func (a roleAdvice) otherIdentity() []string {
	text := fmt.Sprintf("# or, to log in as %s: as the identity that has this role", quote.Shell(a.user()))
	r := remedies{a.examination}
	lines := []string{quote.Comment(text)}
	isPerson, inEnvironment := a.claims.Kind() == claims.Person, r.source() == "EnvironmentCredential"
	switch {
	case isPerson && inEnvironment:
		return append(lines, quote.Export("AZURE_USERNAME", "NAME@DOMAIN"), quote.Export("AZURE_PASSWORD", "PASSWORD"))
	case isPerson:
		return append(lines, r.logInAgain()...)
	case inEnvironment:
		return append(lines, quote.Export("AZURE_CLIENT_ID", "CLIENT_ID"), quote.Export("AZURE_CLIENT_SECRET", "SECRET"))
	case a.login.Identity.ClientID == "":
		return nil
	default:
		return append(lines, r.choose(a.login.Identity.ClientID, "CLIENT_ID")[1:]...)
	}
}

// membership explains a token that does not contain a group. A token contains the
// memberships at the time when it was issued.
func (a roleAdvice) membership(ctx context.Context, message string) (explanation string, fix []string) {
	group := "GROUP_ID"
	if match := groupID.FindStringSubmatch(message); match != nil {
		group = match[1]
	}
	explanation = a.describePrincipal("") + ", which is the role of a group that the token does not contain"
	fix = []string{
		"# shows whether the identity is a member",
		"az ad group member check --group " + group + " --member-id " + quote.Shell(a.claims.Text("oid")),
	}
	issued := ""
	if seconds, ok := a.claims["iat"].(float64); ok {
		issued = " at " + clock(time.Unix(int64(seconds), 0))
	}
	switch {
	case (remedies{a.examination}).source() == "ManagedIdentityCredential":
		const sql = "-- at once, without the group: its own role; as an Entra administrator of the server, in the database postgres"
		explanation += ". A membership newer than the token shows in the next one. The token was issued" + issued +
			", and Azure returns the same one until it expires at " + clock(a.token.Expires) +
			"; nothing renews it before. Log in again then"
		if tokenUser := a.tokenUser(ctx); tokenUser != "" {
			r := remedies{a.examination}
			fix = append(fix, sql, r.create(tokenUser))
			fix = append(fix, r.set("user", tokenUser)...)
		}
	case a.claims.Kind() != claims.Person:
		explanation += ". The token was issued" + issued + ": a membership newer than that shows in the next token, " +
			"which each new process requests; Entra can take a few minutes"
		fix = append(fix, "# if that says true, in a few minutes", remedies{a.examination}.commandLine("doctor"))
	default:
		explanation += ". The token was issued" + issued + ": a membership newer than that shows after a new login"
		fix = append(append(fix, "# if that says true"), remedies{a.examination}.logInAgain()...)
	}
	return explanation, fix
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
