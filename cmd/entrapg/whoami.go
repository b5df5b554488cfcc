package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/azlog"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/settings"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

func whoamiCommand(std command.Streams) *cli.Command {
	var t dsn.Target
	var asJSON bool
	return &cli.Command{
		Name: "whoami", ArgsUsage: "[DSN]",
		Usage:     "show the identity of the token and its PostgreSQL user",
		UsageText: "entrapg whoami\nentrapg whoami --json | jq -r .user",
		Description: "Requests a token and shows its identity, its most important claims, the credential that returned it, " +
			"and the PostgreSQL user of a login with the rule that determines it. The token itself is not shown, and no server " +
			"is contacted.\n" +
			dsn.Help + " Without a DSN, the token is for the Azure public cloud.",
		Flags: append(t.Flags(), &cli.BoolFlag{Name: "json", Usage: "write JSON", Destination: &asJSON}),
		Action: func(ctx context.Context, c *cli.Command) error {
			login, err := t.Open(c.Args().Slice(), anywhere)
			if err != nil {
				return err
			}
			defer login.Close()
			if !login.Entra() {
				return command.UsageError("whoami: entra_credential=none has no identity except the user of the DSN")
			}
			tried := azlog.Watch()
			token, err := login.Token(ctx, true)
			var noUser *entrapg.UsernameError
			if err != nil && (token == nil || !errors.As(err, &noUser)) {
				return err
			}
			who := identify(login, token, tried, time.Now())
			source := t.Source(c.Args().Slice())
			who.Rule, who.Settings = rule(login, token, source), settings.InEffect(login, source)
			if login.Config.User != "" && who.Kind == claims.ManagedIdentity {
				who.Name = derived(ctx, login, who.Name)
			}
			if asJSON {
				return errors.Join(std.Out.JSON(who), err)
			}
			who.write(std.Out)
			return err
		},
	}
}

// deriveLimit bounds derived.
const deriveLimit = 10 * time.Second

// derived returns the name of a managed identity whose user is set, or otherwise.
func derived(ctx context.Context, login *inspect.Login, otherwise string) string {
	ctx, cancel := context.WithTimeout(ctx, deriveLimit)
	defer cancel()
	token, err := login.Derive(ctx)
	if err != nil || token.Lookup != nil {
		return otherwise
	}
	return token.User
}

// An identity is the information in a token.
type identity struct {
	Kind       string             `json:"kind"` // of principal
	Name       string             `json:"name,omitempty"`
	User       string             `json:"user,omitempty"`
	Rule       string             `json:"rule,omitempty"`
	Credential string             `json:"credential"`
	Scope      string             `json:"scope"`
	Expires    time.Time          `json:"expires"`
	Left       int                `json:"expires_in"` // seconds
	Size       int                `json:"size"`       // bytes
	Claims     map[string]string  `json:"claims"`
	Groups     int                `json:"groups"`
	Note       string             `json:"note,omitempty"`
	Settings   []settings.Setting `json:"settings,omitempty"`
}

// shown are the claims that whoami shows.
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

func identify(login *inspect.Login, token *inspect.Token, tried *azlog.Attempts, now time.Time) *identity {
	who := &identity{
		Kind: "unknown: the token is not a JSON Web Token", User: token.User,
		Credential: tried.Name(login.Credential), Scope: login.Scope,
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
		who.Note = claims.GuestRole + "; set user to that name, such as " + c.GuestName()
	}
	return who
}

// rule describes the origin of the user.
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

func (who *identity) write(out *terminal.Output) {
	row := func(label string, text terminal.Text) {
		if text != "" {
			out.Field(label, text)
		}
	}
	name := terminal.Escape(who.Kind)
	if who.Name != "" {
		name = out.Bold(who.Name) + ", " + terminal.Escape(who.Kind)
	}
	row("identity", name)
	if who.User != "" {
		row("user", out.Bold(who.User)+", from "+terminal.Escape(who.Rule))
	}
	row("credential", terminal.Escape(who.Credential))
	row("lifetime", terminal.Sprintf("%s left, until %s",
		terminal.Duration(time.Duration(who.Left)*time.Second), who.Expires.Format("2006-01-02 15:04:05 MST")))
	for _, claim := range shown {
		row(claim.label, terminal.Escape(who.Claims[claim.key]))
	}
	if who.Groups > 0 {
		row("groups", terminal.Sprintf("%d", who.Groups))
	}
	identifying := slices.DeleteFunc(slices.Clone(who.Settings), func(s settings.Setting) bool {
		return s.Name != "user" && !strings.HasPrefix(s.Name, "entra_") && s.Name == strings.ToLower(s.Name)
	})
	for i, line := range settings.ByOrigin(identifying) {
		label := "settings"
		if i > 0 {
			label = ""
		}
		row(label, terminal.Escape(line))
	}
	if who.Note != "" {
		row("note", out.Warn(who.Note))
	}
}
