package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

func whoamiCommand(std streams) *cli.Command {
	var t target
	var asJSON bool
	return &cli.Command{
		Name: "whoami", ArgsUsage: "[DSN]",
		Usage:     "show the identity of the token and its PostgreSQL user",
		UsageText: "entrapg whoami\nentrapg whoami --json | jq -r .user",
		Description: "Requests a token and shows its identity, its most important claims, the credential that returned it, " +
			"and the PostgreSQL user of a login with the rule that chose it. The token itself is not shown, and no server " +
			"is contacted.\n" +
			aboutDSN + " Without a DSN, the token is for the Azure public cloud.",
		Flags: append(t.flags(), &cli.BoolFlag{Name: "json", Usage: "write JSON", Destination: &asJSON}),
		Action: func(ctx context.Context, c *cli.Command) error {
			login, err := t.open(c.Args().Slice(), anywhere)
			if err != nil {
				return err
			}
			defer login.Close()
			if !login.Entra() {
				return wrongUse("whoami: entra_credential=none has no identity except the user of the DSN")
			}
			tried := watchAttempts()
			token, err := login.Token(ctx, true)
			var noUser *entrapg.UsernameError
			if err != nil && (token == nil || !errors.As(err, &noUser)) {
				return err
			}
			who := identify(login, token, tried, time.Now())
			who.Rule, who.Settings = rule(login, token, t.source(c.Args().Slice())), settingsOf(login, t.source(c.Args().Slice()))
			if login.Config.User != "" && who.Kind == claims.ManagedIdentity {
				who.Name = derived(ctx, login, who.Name)
			}
			if asJSON {
				return errors.Join(std.out.json(who), err)
			}
			who.write(std.out)
			return err
		},
	}
}

// derived returns the name of a managed identity whose user is set, or otherwise.
func derived(ctx context.Context, login *inspect.Login, otherwise string) string {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	token, err := login.Derive(ctx)
	if err != nil || token.Lookup != nil {
		return otherwise
	}
	return token.User
}

// An identity is what a token tells.
type identity struct {
	Kind       string            `json:"kind"` // of principal
	Name       string            `json:"name,omitempty"`
	User       string            `json:"user,omitempty"`
	Rule       string            `json:"rule,omitempty"`
	Credential string            `json:"credential"`
	Scope      string            `json:"scope"`
	Expires    time.Time         `json:"expires"`
	Left       int               `json:"expires_in"` // seconds
	Size       int               `json:"size"`       // bytes
	Claims     map[string]string `json:"claims"`
	Groups     int               `json:"groups"`
	Note       string            `json:"note,omitempty"`
	Settings   []setting         `json:"settings,omitempty"`
}

// shown are the claims that tell who somebody is, and what for.
var shown = []struct{ key, label string }{
	{"aud", "audience"},
	{"tid", "tenant"},
	{"oid", "object ID"},
	{"appid", "client ID"},
	{"upn", "upn"},
	{"preferred_username", "preferred"},
	{"unique_name", "unique name"},
	{"app_displayname", "app name"},
	{"xms_mirid", "resource"},
}

func identify(login *inspect.Login, token *inspect.Token, tried *attempts, now time.Time) *identity {
	who := &identity{
		Kind: "unknown: the token is not a JSON Web Token", User: token.User,
		Credential: tried.name(login.Credential), Scope: login.Scope,
		Expires: token.Expires.UTC().Truncate(time.Second), Left: int(token.Expires.Sub(now).Seconds()),
		Size: len(token.Value), Claims: map[string]string{},
	}
	c, err := claims.Parse(token.Value)
	if err != nil {
		return who
	}
	for _, claim := range shown {
		if text := c.Text(claim.key); text != "" {
			who.Claims[claim.key] = text
		}
	}
	groups, _ := c["groups"].([]any)
	who.Groups = len(groups)
	who.Kind = c.Kind()
	who.Name = c.RoleName().Role
	if who.Name == "" {
		who.Name = c.ApplicationName().Role
	}
	if login.Config.User == "" && who.Kind == claims.ManagedIdentity {
		who.Name = token.User // the token for the database does not name it
	}
	if c.Guest() && !strings.Contains(token.User, "#EXT#") {
		who.Note = guestRole + ", such as " + guestName(c)
	}
	return who
}

// rule says where the user comes from.
func rule(login *inspect.Login, token *inspect.Token, source string) string {
	switch origin := login.Settings["user"].Origin; {
	case token.Claim != "":
		return "the claim " + token.Claim
	case token.User == "":
		return ""
	case origin == connstring.OriginDSN && source == "DATABASE_URL":
		return source
	case origin == connstring.OriginDSN, origin == "":
		return "the DSN"
	default:
		return origin
	}
}

func (who *identity) write(out *terminal) {
	row := func(label string, text styled) {
		if text != "" {
			out.field(label, text)
		}
	}
	name := escape(who.Kind)
	if who.Name != "" {
		name = out.bold(who.Name) + ", " + escape(who.Kind)
	}
	row("identity", name)
	if who.User != "" {
		row("user", out.bold(who.User)+", from "+escape(who.Rule))
	}
	row("credential", escape(who.Credential))
	row("lifetime", sprintf("%s left, until %s",
		round(time.Duration(who.Left)*time.Second), who.Expires.Format("2006-01-02 15:04:05 MST")))
	for _, claim := range shown {
		row(claim.label, escape(who.Claims[claim.key]))
	}
	if who.Groups > 0 {
		row("groups", sprintf("%d", who.Groups))
	}
	identifying := slices.DeleteFunc(slices.Clone(who.Settings), func(s setting) bool {
		return s.Name != "user" && !strings.HasPrefix(s.Name, "entra_") && s.Name == strings.ToLower(s.Name)
	})
	for i, line := range byOrigin(identifying) {
		label := "settings"
		if i > 0 {
			label = ""
		}
		row(label, escape(line))
	}
	if who.Note != "" {
		row("note", out.warn(who.Note))
	}
}
