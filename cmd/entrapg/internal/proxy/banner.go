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
	for _, f := range p.fronts {
		out.Printf("%s %s → %s\n", out.Good("✓"), out.Bold(f.address.String()), quote.Comment(f.upstream.name))
	}
	switch {
	case p.password == password{}:
		out.Printf("\n%s\n\n", out.Bold("Connect:"))
	case p.password.from == "":
		out.Printf("\n%s\n\n", out.Bold("Connect, with a password that is valid until the proxy ends:"))
	default:
		out.Printf("\n%s\n\n", out.Bold("Connect, with the password of "+p.password.from+":"))
	}
	for _, f := range p.fronts {
		out.Printf("  %s\n", psql(p, f))
	}
	out.Printf("\n%s\n\n", out.Dim("Ctrl-C stops the proxy."))
}

// psql returns a command that connects to a front.
func psql(p *plan, f *front) string {
	database := f.upstream.Config().Database
	if database == "" {
		database = "postgres"
	}
	settings := []string{
		"host=" + quote.Conninfo(f.address.ClientHost()), "port=" + strconv.Itoa(int(f.address.Port)),
		"dbname=" + quote.Conninfo(database),
	}
	if p.clientUser {
		settings = append(settings, "user=USER")
	}
	if f.address.Path == "" {
		mode := "disable"
		if p.tlsConfig(f) != nil {
			mode = "require"
		}
		settings = append(settings, "sslmode="+mode)
	}
	command := "psql " + quote.Shell(strings.Join(settings, " "))
	switch {
	case p.password.value == "" || p.password.from != "" || f.address.Private():
		return command
	case runtime.GOOS == "windows":
		return "$env:PGPASSWORD='" + p.password.value + "'; " + command
	}
	return "PGPASSWORD=" + p.password.value + " " + command
}
