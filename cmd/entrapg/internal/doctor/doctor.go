// Package doctor is the command doctor: it performs a login step by step, explains the
// first failure, and shows how to fix it.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/azlog"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/dsn"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// Command returns the command doctor, which writes to std.
func Command(std command.Streams) *cli.Command {
	var t dsn.Target
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
			"The doctor waits 5 seconds, or connect_timeout if that is set, for each address, and 30 seconds for the login. If " +
			"the login fails because of its user or its database, the doctor tries another login, with the user that the token " +
			"names or with the database postgres, to check its advice.\n" +
			"With --json, each object has step (DSN, DNS, TCP, TLS, credential, token, user, login, server or clock), status " +
			"(ok, warning or failed), milliseconds, and, if they apply: found, a list of facts; error, the message of the " +
			"server, Entra or the network; explanation; and fix, a list of lines to paste, in which lines that begin with # or " +
			"-- are comments. The step DSN has settings, a list of objects with name, value and origin: argument, --dsn, " +
			"DATABASE_URL or another variable, \"service NAME in FILE\", or default. Secrets have the value REDACTED. Steps " +
			"that do not apply, and those after a failure, are omitted.\n" +
			dsn.Help,
		Flags: append(t.Flags(), &cli.BoolFlag{
			Name: "json", Destination: &asJSON,
			Usage: "write JSON: an array with the finding of each step",
		}),
		Action: func(ctx context.Context, c *cli.Command) error {
			dsn, err := t.Find(c.Args().Slice())
			if err != nil {
				return err
			}
			d := &diagnosis{
				state: &state{dsn: dsn, source: t.Source(c.Args().Slice()), tried: azlog.Watch()},
				out:   std.Out, quiet: asJSON, findings: []*finding{},
			}
			defer d.close()
			err = d.run(ctx)
			if asJSON {
				return errors.Join(d.out.JSON(d.findings), err)
			}
			return err
		},
	}
}

// A diagnosis runs the steps of a login.
type diagnosis struct {
	*state
	out      *terminal.Output
	quiet    bool // findings are not written step by step
	findings []*finding
}

// A step is one step of a login. Its name is in the JSON output.
type step struct {
	name  string
	limit time.Duration // of the whole step
	run   func(context.Context, *finding) *problem
}

func (d *diagnosis) steps() []step {
	const quick = 10 * time.Second
	settings, network, tls := settingsStep{d.state}, networkSteps{d.state}, tlsStep{d.state}
	entra, server := entraSteps{d.state}, serverSteps{d.state}
	return []step{
		{"DSN", quick, settings.read},
		{"DNS", 0, network.lookUp},
		{"TCP", 0, network.dial},
		{"TLS", 0, tls.encrypt},
		{"credential", 2 * time.Minute, entra.requestToken}, // package entrapg has its own, shorter limits
		{"token", quick, entra.readToken},
		{"user", quick, entra.nameUser},
		{"login", time.Minute, server.logIn},
		{"server", quick, server.describe},
		{"clock", quick, server.compareClocks},
	}
}

func (d *diagnosis) run(ctx context.Context) error {
	for _, step := range d.steps() {
		f := &finding{Step: step.name, Status: statusOK}
		start := time.Now()
		stop := d.progress(step.name)
		p := d.take(ctx, step, f)
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Took = time.Since(start).Milliseconds()
		if p != nil {
			f.Status, f.problem = statusFailed, *p
		}
		if d.token != nil {
			f.redact(d.token.Value)
		}
		if f.Status == statusOK && len(f.Found) == 0 {
			continue // it does not apply
		}
		d.findings = append(d.findings, f)
		if !d.quiet {
			f.write(d.out)
		}
		if p != nil {
			return command.ErrReported
		}
	}
	if !d.quiet {
		d.out.Printf("\n%s\n", d.out.Bold("The login as "+d.token.User+" works."))
	}
	return nil
}

// take runs a step within its limit. Network steps have a limit for each address
// instead.
func (d *diagnosis) take(ctx context.Context, s step, f *finding) *problem {
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	return s.run(ctx, f)
}

// progress shows, on a terminal, that a step takes longer than a second.
func (d *diagnosis) progress(step string) (stop func()) {
	if d.quiet || !d.out.Live {
		return func() {}
	}
	const clear terminal.Text = "\r\x1b[K"
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
				d.out.Printf("%s%s",
					clear, d.out.Dim(fmt.Sprintf("… %-*s%.0f s", terminal.LabelWidth, step, time.Since(start).Seconds())))
			case <-done:
				if shown {
					d.out.Printf("%s", clear)
				}
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
