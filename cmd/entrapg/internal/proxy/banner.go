package proxy

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal"
)

// printBanner prints the addresses and how to connect to them. It is the only place
// that prints a generated password.
func printBanner(out *terminal.Output, p *plan) {
	out.Printf("\n")
	for _, b := range p.bindings {
		out.Printf("%s %s → %s\n", out.Good("✓"), out.Bold(b.address.String()), quote.Comment(b.upstream.name))
	}
	var asking, open []*binding
	for _, b := range p.bindings {
		if p.passwordOf(b) != "" {
			asking = append(asking, b)
		} else {
			open = append(open, b)
		}
	}
	if p.password.from == "" {
		printCommands(out, p, "Connect, with a password that is valid until the proxy ends:", asking)
	} else {
		printCommands(out, p, "Connect, with the password of "+p.password.from+":", asking)
	}
	if len(asking) > 0 {
		printCommands(out, p, "Connect without a password:", open)
	} else {
		printCommands(out, p, "Connect:", open)
	}
	out.Printf("\n%s\n\n", out.Dim("Ctrl-C stops the proxy."))
}

// printCommands prints a command for each binding, under a heading.
func printCommands(out *terminal.Output, p *plan, heading string, bindings []*binding) {
	if len(bindings) == 0 {
		return
	}
	out.Printf("\n%s\n\n", out.Bold(heading))
	for _, b := range bindings {
		if !b.address.ForLibpq() {
			out.Printf("  %s\n", quote.Comment("# "+b.address.Path+": only for clients that take the path of a socket; "+
				"psql needs a name such as .s.PGSQL.5432"))
			continue
		}
		out.Printf("  %s\n", psql(p, b))
	}
}

// psql returns a command that connects to a binding.
func psql(p *plan, b *binding) string {
	database := b.upstream.Config().Database
	if database == "" {
		database = "postgres"
	}
	settings := []string{
		"host=" + quote.Conninfo(b.address.ClientHost()), "port=" + strconv.Itoa(int(b.address.Port)),
		"dbname=" + quote.Conninfo(database),
	}
	if p.clientUser {
		settings = append(settings, "user=USER")
	}
	if b.address.Path == "" {
		mode := "disable"
		if p.tlsConfig(b) != nil {
			mode = "require"
		}
		settings = append(settings, "sslmode="+mode)
	}
	command := "psql " + quote.Shell(strings.Join(settings, " "))
	switch {
	case p.passwordOf(b) == "" || p.password.from != "":
		return command
	case runtime.GOOS == "windows":
		return "$env:PGPASSWORD='" + p.password.value + "'; " + command
	}
	return "PGPASSWORD=" + p.password.value + " " + command
}
