package main

import "os"

// become runs a command as a child, because Windows cannot replace a process.
func become(path string, argv, env []string) error { return runChild(path, argv, env) }

// codeOf returns the exit code of a process that failed.
func codeOf(state *os.ProcessState) exitCode { return exitCode(state.ExitCode()) }
