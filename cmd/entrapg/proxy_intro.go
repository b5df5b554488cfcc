package main

import (
	"runtime"
	"strconv"
	"strings"
	"unicode"
)

// introduce prints the addresses and how to connect to them. It is the only place
// that prints a generated password.
func (plan *proxyPlan) introduce(out *terminal) {
	out.printf("\n")
	for _, f := range plan.fronts {
		out.printf("%s %s → %s\n", out.good("✓"), out.bold(f.address.String()), comment(f.upstream.name))
	}
	switch {
	case plan.password == proxyPassword{}:
		out.printf("\n%s\n\n", out.bold("Connect:"))
	case plan.password.from == "":
		out.printf("\n%s\n\n", out.bold("Connect, with a password that is valid until the proxy ends:"))
	default:
		out.printf("\n%s\n\n", out.bold("Connect, with the password of "+plan.password.from+":"))
	}
	for _, f := range plan.fronts {
		out.printf("  %s\n", plan.psql(f))
	}
	out.printf("\n%s\n\n", out.dim("Ctrl-C stops the proxy."))
}

// psql returns a command that connects to a front.
func (plan *proxyPlan) psql(f *proxyFront) string {
	database := f.upstream.Config().Database
	if database == "" {
		database = "postgres"
	}
	settings := []string{
		"host=" + conninfo(f.address.ClientHost()), "port=" + strconv.Itoa(int(f.address.Port)), "dbname=" + conninfo(database),
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
	command := "psql " + shell(strings.Join(settings, " "))
	switch {
	case plan.password.value == "" || plan.password.from != "" || f.address.Private():
		return command
	case runtime.GOOS == "windows":
		return "$env:PGPASSWORD='" + plan.password.value + "'; " + command
	}
	return "PGPASSWORD=" + plan.password.value + " " + command
}

// conninfo quotes a value for a connection string of libpq.
func conninfo(value string) string {
	if value != "" && !strings.ContainsFunc(value, func(r rune) bool { return r == '\\' || r == '\'' || unicode.IsSpace(r) }) {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
