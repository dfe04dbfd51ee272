package intercept

import "golang.org/x/sys/unix"

// The calls of this architecture, and of the one whose programs run here as well.
const (
	nativeArch  = unix.AUDIT_ARCH_AARCH64
	foreignArch = unix.AUDIT_ARCH_ARM
	// otherNumbers is where the numbers of another way to call begin: there is none.
	otherNumbers = 1 << 31
)

// foreignCalls are what 32-bit programs would reach the network by: socketcall, socket,
// connect, sendto, io_uring_setup.
var foreignCalls = []uint32{102, 281, 283, 290, 425}
