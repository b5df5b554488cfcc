package doctor

import "syscall"

// errRefused is WSAECONNREFUSED, the error if nothing listens. Windows does not
// return package syscall's ECONNREFUSED.
const errRefused = syscall.Errno(10061)
