//go:build !windows

package main

import "syscall"

// become has a program take this process's place, so that signals, job control
// and the exit code are its own without anybody's help. It returns only where
// that fails.
func become(path string, argv, env []string) error { return syscall.Exec(path, argv, env) }
