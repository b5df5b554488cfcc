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

// A state holds the results of the steps so far.
type state struct {
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
func (s *state) answerTimeout() time.Duration {
	if s.login.Settings.Value("connect_timeout") != "" {
		return cmp.Or(s.login.Config.ConnectTimeout, defaultAnswerTimeout)
	}
	return defaultAnswerTimeout
}

// limited bounds the wait for one answer of the network.
func (s *state) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.answerTimeout())
}

// each calls step for every host that has not failed yet. It returns the first
// failure if all hosts fail; otherwise the first failure is a warning.
func (s *state) each(f *finding, step func(*endpoint) *problem) *problem {
	var first *problem
	alive := false
	for _, e := range s.endpoints {
		if e.failed {
			continue
		}
		p := step(e)
		e.failed = p != nil
		alive = alive || p == nil
		first = cmp.Or(first, p)
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
func (s *state) settings() connstring.Settings {
	all := connstring.Parse(connstring.Clean(s.dsn))
	for _, key := range []string{"password", "sslpassword"} {
		if secret, ok := all[key]; ok {
			all[key] = connstring.Setting{Origin: secret.Origin}
		}
	}
	return all
}

// origin returns the place where a setting is or should be set, as shown to users:
// "the DSN" or, for example, "PGUSER".
func (s *state) origin(key string) string {
	switch origin := s.settings()[key].Origin; {
	case origin != connstring.OriginDSN && origin != "":
		return origin
	case s.source == "DATABASE_URL":
		return s.source
	default:
		return "the DSN"
	}
}

// principal returns the kind of principal that the token is for, or "guest".
func (s *state) principal() string {
	if s.claims.Guest() {
		return "guest"
	}
	return s.claims.Kind()
}

// perhapsProxy returns an addition to an explanation if all hosts are on this machine, where
// entrapg proxy listens. A client of the proxy needs neither a token nor TLS.
func (s *state) perhapsProxy() string {
	if !areLocal(hostsOf(s.endpoints)) {
		return ""
	}
	return ". If this is entrapg proxy, its clients need no token: give the doctor the DSN that the proxy uses"
}

// user returns the user of the login.
func (s *state) user() string { return s.token.User }

// database returns the database of the login. By default it has the user's name.
func (s *state) database() string { return cmp.Or(s.login.Config.Database, s.user()) }

// probeLimit bounds a second login, which only improves the advice.
const probeLimit = 10 * time.Second

// briefly bounds a second login or token request by probeLimit, or by a longer connect_timeout.
func (s *state) briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(probeLimit, s.answerTimeout()))
}

// probe logs in with another value of a setting, and calls do if that works.
func (s *state) probe(ctx context.Context, key, value string, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := s.briefly(ctx)
	defer cancel()
	login, err := inspect.Open(connstring.WithOverride(connstring.Clean(s.dsn), key, value))
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

func (s *state) close() {
	for _, e := range s.endpoints {
		if e.conn != nil {
			e.conn.Close()
		}
	}
	if s.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.conn.Close(ctx)
	}
	if s.login != nil {
		s.login.Close()
	}
}
