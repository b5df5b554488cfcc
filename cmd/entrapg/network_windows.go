package main

import "syscall"

// errRefused is the answer where nobody listens: WSAECONNREFUSED. Package syscall's
// own ECONNREFUSED is a number that Windows never gives.
const errRefused = syscall.Errno(10061)
