package main

import (
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
		"":                   {127, "exec: the command is empty; check the variable that it comes from"},
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
