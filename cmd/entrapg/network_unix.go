//go:build !windows

package main

import "syscall"

// errRefused is the error if nothing listens.
const errRefused = syscall.ECONNREFUSED
