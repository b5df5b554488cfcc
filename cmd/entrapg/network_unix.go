//go:build !windows

package main

import "syscall"

// errRefused is the answer where nobody listens.
const errRefused = syscall.ECONNREFUSED
