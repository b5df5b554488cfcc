package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/inspect"
)

func doctorCommand(std streams) *cli.Command {
	var t target
	var asJSON bool
	return &cli.Command{
		Name: "doctor", ArgsUsage: "[DSN]",
		Usage:     "find out why a login fails, and how to fix it",
		UsageText: "entrapg doctor\nentrapg doctor host=shop.postgres.database.azure.com",
		Description: "Performs a login step by step: the DSN, DNS, TCP, TLS, the credential, its token, the user, the " +
			"login itself, the server, and its clock. Each step shows its result. At the first failure the doctor " +
			"stops and shows the error of the server or of Entra, its explanation, and the command or SQL that fixes it.\n" +
			"The output contains no secrets: you can paste it into a ticket. The exit code is 0 if the login works, and 1 " +
			"if it fails.\n" +
			aboutDSN,
		Flags: append(t.flags(), &cli.BoolFlag{
			Name: "json", Destination: &asJSON,
			Usage: "write JSON: an array with the finding of each step",
		}),
		Action: func(ctx context.Context, c *cli.Command) error {
			dsn, err := t.find(c.Args().Slice())
			if err != nil {
				return err
			}
			d := &diagnosis{dsn: dsn, out: std.out, quiet: asJSON, tried: listen()}
			defer d.close()
			err = d.run(ctx)
			if asJSON {
				return errors.Join(d.out.json(d.findings), err)
			}
			return err
		},
	}
}

// A diagnosis is one visit to the doctor.
type diagnosis struct {
	dsn   string
	out   *terminal
	quiet bool // nothing is written as it happens
	tried *attempts

	findings []*finding

	// What the steps have found out so far.
	login     *inspect.Login
	endpoints []*endpoint
	token     *inspect.Token
	claims    claims.Claims
	noUser    error
	conn      *pgx.Conn
}

// A finding is what a step found.
type finding struct {
	Step   string   `json:"step"`
	Status status   `json:"status"`
	Found  []string `json:"found,omitempty"`
	trouble
	Took int64 `json:"milliseconds"`
}

// A trouble is what is wrong.
type trouble struct {
	Said  string   `json:"said,omitempty"`  // their own words
	Means string   `json:"means,omitempty"` // and what they come to
	Fix   []string `json:"fix,omitempty"`   // lines to type
}

type status string

const (
	statusOK      status = "ok"
	statusWarning status = "warning" // the login goes on
	statusFailed  status = "failed"
)

func (f *finding) note(format string, args ...any) {
	f.Found = append(f.Found, fmt.Sprintf(format, args...))
}

// warn tells of something that does not end the login.
func (f *finding) warn(t *trouble) {
	if f.Status == statusOK {
		f.Status, f.trouble = statusWarning, *t
	}
}

func (d *diagnosis) run(ctx context.Context) error {
	for _, step := range []struct {
		name string
		run  func(context.Context, *finding) *trouble
	}{
		{"DSN", d.readDSN},
		{"DNS", d.lookUp},
		{"TCP", d.dial},
		{"TLS", d.encrypt},
		{"credential", d.askToken},
		{"token", d.readToken},
		{"user", d.nameUser},
		{"login", d.logIn},
		{"server", d.askServer},
		{"clock", d.compareClocks},
	} {
		f := &finding{Step: step.name, Status: statusOK}
		start := time.Now()
		stop := d.progress(step.name)
		t := step.run(ctx, f)
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Took = time.Since(start).Milliseconds()
		if t != nil {
			f.Status, f.trouble = statusFailed, *t
		}
		if f.Status == statusOK && len(f.Found) == 0 {
			continue // it does not apply
		}
		d.findings = append(d.findings, f)
		if !d.quiet {
			f.write(d.out)
		}
		if t != nil {
			return errSaid
		}
	}
	if !d.quiet {
		d.out.printf("\n%s\n", d.out.bold(d.token.User+" logs in."))
	}
	return nil
}

// progress shows, on a terminal, that a step is under way once it takes long.
func (d *diagnosis) progress(step string) (stop func()) {
	if d.quiet || !d.out.live {
		return func() {}
	}
	const clear styled = "\r\x1b[K"
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		start, tick := time.Now(), time.NewTicker(time.Second)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				shown = true
				d.out.printf("%s%s", clear, d.out.dim(fmt.Sprintf("… %-*s%.0f s", labelWidth, step, time.Since(start).Seconds())))
			case <-done:
				if shown {
					d.out.printf("%s", clear)
				}
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (f *finding) write(out *terminal) {
	symbol := map[status]styled{statusOK: out.good("✓"), statusWarning: out.warn("!"), statusFailed: out.bad("✗")}[f.Status]
	head := sprintf("%s %-*s", symbol, labelWidth, f.Step)
	for _, text := range f.Found {
		out.hang(head, escape(text))
		head = styled(strings.Repeat(" ", 2+labelWidth))
	}
	if f.Status == statusOK {
		return
	}
	if f.Said != "" {
		said := escape(f.Said)
		if f.Status == statusFailed {
			said = out.bad(f.Said)
		}
		out.hang(head, said)
	} else if len(f.Found) == 0 {
		out.hang(head, escape(f.Means))
	}
	if f.Said != "" && f.Means != "" {
		out.hang(sprintf("  %-*s", labelWidth, "means"), escape(f.Means))
	}
	if len(f.Fix) > 0 {
		out.printf("  to fix it\n")
	}
	for _, line := range f.Fix { // whole, so that they can be copied
		if strings.HasPrefix(line, "--") || strings.HasPrefix(line, "#") {
			for _, part := range wrap(strings.TrimSpace(line[strings.IndexByte(line, ' '):]), out.width-4-len("-- ")) {
				out.printf("    %s\n", out.dim(line[:strings.IndexByte(line, ' ')]+" "+part))
			}
			continue
		}
		out.printf("    %s\n", out.bold(line))
	}
}

func (d *diagnosis) readDSN(_ context.Context, f *finding) *trouble {
	login, err := inspect.Open(d.dsn)
	var config *entrapg.ConfigError
	switch {
	case errors.As(err, &config):
		return &trouble{Said: config.Setting + ": " + config.Problem}
	case err != nil:
		return &trouble{Said: strings.TrimPrefix(err.Error(), "entrapg: ")}
	}
	d.login = login
	d.endpoints = endpointsOf(login.Config)
	var addresses []string
	for _, e := range d.endpoints {
		addresses = append(addresses, e.String())
	}
	database := login.Config.Database
	if database == "" {
		database = "of the user's name"
	}
	f.note("%s, database %s", strings.Join(addresses, ", "), database)
	credential := login.Credential
	if !login.Entra() {
		credential = "a password, and no Entra"
	}
	mode := login.SSLMode
	if login.Azure && (mode == "require" || mode == "verify-ca" && !login.Entra()) {
		mode += ", which is verify-full for Azure's servers"
	}
	f.note("sslmode %s; %s", mode, credential)
	return nil
}

func (d *diagnosis) close() {
	for _, e := range d.endpoints {
		if e.conn != nil {
			e.conn.Close()
		}
	}
	if d.conn != nil {
		d.conn.Close(context.Background())
	}
	if d.login != nil {
		d.login.Close()
	}
}
