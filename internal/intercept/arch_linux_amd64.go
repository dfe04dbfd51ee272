package intercept

import "golang.org/x/sys/unix"

// The calls of this architecture, and of the one whose programs run here as well.
const (
	nativeArch  = unix.AUDIT_ARCH_X86_64
	foreignArch = unix.AUDIT_ARCH_I386
	// otherNumbers is where the numbers of another way to call begin: x32's.
	otherNumbers = 0x40000000
)

// foreignCalls are what 32-bit programs would reach the network by: socketcall, socket,
// connect, sendto, io_uring_setup.
var foreignCalls = []uint32{102, 359, 362, 369, 425}
