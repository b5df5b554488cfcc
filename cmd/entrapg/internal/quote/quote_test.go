package quote

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/terminal/terminaltest"
	"github.com/entrapg/entrapg/entrapgtest"
)

// injected is a command that a shell must not run.
const injected = "$(touch touched)"

func TestQuote_TextArrivesUnchanged(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("no bash")
	}
	server, err := entrapgtest.Start(t.Context(), entrapgtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	admin, err := pgx.Connect(t.Context(), server.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, want := range []string{"plain", injected, "it's", `a"b`, `back\slash`, "a\nb", terminaltest.Control, "ü " + injected + "'\n!\\", "\U000e0001'"} {
		for _, quoted := range []string{Literal(want), Identifier(want), Shell(want)} {
			terminaltest.RequireHarmless(t, strings.ReplaceAll(quoted, "\n", "\v")) // newlines must be escaped too
		}
		got, err := exec.CommandContext(t.Context(), bash, "-c", "printf %s "+Shell(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: bash reads %q, want %q (%v)", Shell(want), got, want, err)
		}
		rows, err := admin.Query(t.Context(), "select "+Literal(want)+" as "+Identifier(want), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		column := rows.FieldDescriptions()
		value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
		if err != nil || value != want || column[0].Name != want {
			t.Errorf("%s: PostgreSQL reads %q (%v)", Literal(want), value, err)
		}
	}
}
