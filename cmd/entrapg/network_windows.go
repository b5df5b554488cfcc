package main

import "syscall"

// errRefused is the error if nothing listens: WSAECONNREFUSED. Package syscall's
// own ECONNREFUSED is a number that Windows does not return.
const errRefused = syscall.Errno(10061)
