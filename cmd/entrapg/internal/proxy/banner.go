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
func (plan *plan) printBanner(out *terminal.Output) {
	out.Printf("\n")
	for _, f := range plan.fronts {
		out.Printf("%s %s → %s\n", out.Good("✓"), out.Bold(f.address.String()), quote.Comment(f.upstream.name))
	}
	switch {
	case plan.password == password{}:
		out.Printf("\n%s\n\n", out.Bold("Connect:"))
	case plan.password.from == "":
		out.Printf("\n%s\n\n", out.Bold("Connect, with a password that is valid until the proxy ends:"))
	default:
		out.Printf("\n%s\n\n", out.Bold("Connect, with the password of "+plan.password.from+":"))
	}
	for _, f := range plan.fronts {
		out.Printf("  %s\n", plan.psql(f))
	}
	out.Printf("\n%s\n\n", out.Dim("Ctrl-C stops the proxy."))
}

// psql returns a command that connects to a front.
func (plan *plan) psql(f *front) string {
	database := f.upstream.Config().Database
	if database == "" {
		database = "postgres"
	}
	settings := []string{
		"host=" + quote.Conninfo(f.address.ClientHost()), "port=" + strconv.Itoa(int(f.address.Port)), "dbname=" + quote.Conninfo(database),
	}
	if plan.clientUser {
		settings = append(settings, "user=USER")
	}
	if f.address.Path == "" {
		mode := "disable"
		if plan.tlsConfig(f) != nil {
			mode = "require"
		}
		settings = append(settings, "sslmode="+mode)
	}
	command := "psql " + quote.Shell(strings.Join(settings, " "))
	switch {
	case plan.password.value == "" || plan.password.from != "" || f.address.Private():
		return command
	case runtime.GOOS == "windows":
		return "$env:PGPASSWORD='" + plan.password.value + "'; " + command
	}
	return "PGPASSWORD=" + plan.password.value + " " + command
}
