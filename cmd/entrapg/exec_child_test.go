package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExec_ExitsWith126Or127IfCommandDoesNotRun(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "exec-start", true)
	dir := t.TempDir()
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"plain":          {"#!/bin/sh\n", 0o644},
		"no-header":      {"echo hello\n", 0o755},
		"no-interpreter": {"#!/nowhere/sh\n", 0o755},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	env = append(env, "PATH="+dir+":"+os.Getenv("PATH"))
	for command, test := range map[string]struct {
		code int
		want string
	}{
		"no-such-command":    {127, `exec: "no-such-command" is not in PATH; install it, or run it by its path`},
		in("missing"):        {127, `missing" does not exist`},
		in("no-interpreter"): {127, `its interpreter is missing`},
		"no-interpreter":     {127, `its interpreter is missing`},
		in("plain"):          {126, `plain" cannot be executed: permission denied`},
		"plain":              {126, `plain" cannot be executed: permission denied`},
		in("no-header"):      {126, `cannot be executed: exec format error; a script must begin with #!`},
		dir:                  {126, `cannot be executed: is a directory`},
		in("plain/x"):        {126, `cannot be executed: not a directory`},
	} {
		r := runAs(t, env, "exec", "--", command)
		if r.code != test.code || !strings.HasPrefix(r.stderr, "entrapg: exec: ") || !strings.Contains(r.stderr, test.want) || r.stdout != "" {
			t.Errorf("%s: %+v, want %d and %s", command, r, test.code, test.want)
		}
	}
}

func TestRunChild_ReturnsExitCode(t *testing.T) {
	t.Parallel()
	sh := lookPath(t, "sh")
	for script, want := range map[string]exitCode{"exit 0": 0, "exit 7": 7, "exit $CODE": 9, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		err := runChild(sh, []string{"sh", "-c", script}, []string{"CODE=9"})
		var code exitCode
		if errors.As(err, &code); code != want || (err == nil) != (want == 0) {
			t.Errorf("%s: %v, want %d", script, err, want)
		}
	}
	if err := runChild("/nowhere/sh", []string{"sh"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing command: %v", err)
	}
}
