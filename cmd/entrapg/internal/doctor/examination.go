package doctor

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/azlog"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/inspect"
)

// An examination holds the results of the steps so far.
type examination struct {
	dsn    string
	source string // of the DSN: "argument", "--dsn", "DATABASE_URL", or empty
	tried  *azlog.Attempts

	login     *inspect.Login
	endpoints []*endpoint
	token     *inspect.Token
	claims    claims.Claims
	noUser    error
	conn      *pgx.Conn
}

// defaultAnswerTimeout bounds the wait for one answer of the network, unless
// connect_timeout is set. Programs wait 30 s by default.
const defaultAnswerTimeout = 5 * time.Second

// answerTimeout returns how long to wait for one answer of the network.
func (x *examination) answerTimeout() time.Duration {
	if x.login.Settings.Value("connect_timeout") != "" {
		return cmp.Or(x.login.Config.ConnectTimeout, defaultAnswerTimeout)
	}
	return defaultAnswerTimeout
}

// limited bounds the wait for one answer of the network.
func (x *examination) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, x.answerTimeout())
}

// each calls step for every host that has not failed yet. It returns the first
// failure if all hosts fail; otherwise the first failure is a warning.
func (x *examination) each(f *finding, step func(*endpoint) *trouble) *trouble {
	var first *trouble
	alive := false
	for _, e := range x.endpoints {
		if e.failed {
			continue
		}
		t := step(e)
		e.failed = t != nil
		alive = alive || t == nil
		first = cmp.Or(first, t)
	}
	if alive {
		if first != nil {
			f.warn(first)
		}
		return nil
	}
	return first
}

// settings returns the settings in effect, without secrets.
func (x *examination) settings() connstring.Settings {
	all := connstring.Parse(connstring.Clean(x.dsn))
	for _, key := range []string{"password", "sslpassword"} {
		if secret, ok := all[key]; ok {
			all[key] = connstring.Setting{Origin: secret.Origin}
		}
	}
	return all
}

// origin returns the place where a setting is or should be set, as shown to users:
// "the DSN" or, for example, "PGUSER".
func (x *examination) origin(key string) string {
	switch origin := x.settings()[key].Origin; {
	case origin != connstring.OriginDSN && origin != "":
		return origin
	case x.source == "DATABASE_URL":
		return x.source
	default:
		return "the DSN"
	}
}

// principal returns the kind of principal that the token is for, or "guest".
func (x *examination) principal() string {
	if x.claims.Guest() {
		return "guest"
	}
	return x.claims.Kind()
}

// user returns the user of the login.
func (x *examination) user() string { return x.token.User }

// database returns the database of the login. By default it has the user's name.
func (x *examination) database() string { return cmp.Or(x.login.Config.Database, x.user()) }

// probeLimit bounds a second login, which only improves the advice.
const probeLimit = 10 * time.Second

// probe logs in with another value of a setting, and calls do if that works.
func (x *examination) probe(ctx context.Context, key, value string, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	login, err := inspect.Open(connstring.WithOverride(connstring.Clean(x.dsn), key, value))
	if err != nil {
		return err
	}
	defer login.Close()
	conn, err := login.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if do == nil {
		return nil
	}
	return do(ctx, conn.(*stdlib.Conn).Conn())
}

func (x *examination) close() {
	for _, e := range x.endpoints {
		if e.conn != nil {
			e.conn.Close()
		}
	}
	if x.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		x.conn.Close(ctx)
	}
	if x.login != nil {
		x.login.Close()
	}
}
