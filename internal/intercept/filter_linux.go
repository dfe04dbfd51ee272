//go:build amd64 || arm64

package intercept

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where things are in what a filter is shown of a call (struct seccomp_data). Its
// arguments are of eight bytes each, on these architectures the low half first.
const (
	offsetNumber    = 0
	offsetArch      = 4
	offsetArguments = 16
	word            = 4 // bytes
)

// socketKinds is what is not a flag of the second argument of a call of socket.
const socketKinds = 0xf

// What a filter can say of a call.
var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	ask   = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
)

func refuse(errno unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// block is a piece of a filter that ends with a verdict.
type block []bpf.Instruction

// filter is the program that the kernel runs for every call of a command and its
// descendants: it must be short, and whatever is not about the network passes.
//
// io_uring could do all that is looked at here without a call. Who finds that there
// is none does without, as on older kernels.
func filter() block {
	native := slices.Concat(
		block{bpf.LoadAbsolute{Off: offsetNumber, Size: word}},
		unless(bpf.JumpLessThan, otherNumbers, block{refuse(unix.ENOSYS)}),
		when(unix.SYS_CONNECT, block{ask}),
		when(unix.SYS_GETPEERNAME, block{ask}),
		when(unix.SYS_SOCKET, sockets()),
		when(unix.SYS_SENDTO, notOpening(3, askWithPointer(4))),
		when(unix.SYS_RECVFROM, askWithPointer(4)),
		when(unix.SYS_RECVMSG, askWithoutFlags(2)),
		when(unix.SYS_SENDMSG, notOpening(2, block{allow})),
		when(unix.SYS_SENDMMSG, notOpening(3, block{allow})),
		when(unix.SYS_IO_URING_SETUP, block{refuse(unix.ENOSYS)}),
		block{allow},
	)
	return slices.Concat(
		block{bpf.LoadAbsolute{Off: offsetArch, Size: word}},
		unless(bpf.JumpNotEqual, nativeArch, native),
		unless(bpf.JumpNotEqual, foreignArch, foreign()),
		block{refuse(unix.ENOSYS)},
	)
}

// foreign keeps 32-bit programs off the network: their calls are others.
func foreign() block {
	all := block{bpf.LoadAbsolute{Off: offsetNumber, Size: word}}
	for _, number := range foreignCalls {
		all = append(all, when(number, block{refuse(unix.ENOSYS)})...)
	}
	return append(all, allow)
}

// sockets judges a call of socket: those for datagrams are made by the supervisor, and
// those of protocols that it cannot lead (SCTP, DCCP, ...) are not made at all.
func sockets() block {
	stream := slices.Concat(
		block{loadArgument(2)},
		unless(bpf.JumpNotEqual, 0, block{allow}),
		unless(bpf.JumpNotEqual, unix.IPPROTO_TCP, block{allow}),
		unless(bpf.JumpNotEqual, unix.IPPROTO_MPTCP, block{allow}),
		block{refuse(unix.EPROTONOSUPPORT)},
	)
	network := slices.Concat(
		block{loadArgument(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketKinds}},
		unless(bpf.JumpNotEqual, unix.SOCK_STREAM, stream),
		unless(bpf.JumpNotEqual, unix.SOCK_DGRAM, block{ask}),
		unless(bpf.JumpNotEqual, unix.SOCK_RAW, block{ask}),
		block{refuse(unix.ESOCKTNOSUPPORT)},
	)
	return slices.Concat(
		block{loadArgument(0)},
		unless(bpf.JumpNotEqual, unix.AF_INET, network),
		unless(bpf.JumpNotEqual, unix.AF_INET6, network),
		block{allow},
	)
}

// notOpening refuses to open a connection of TCP by sending (TCP Fast Open), by the
// flags in an argument. Who finds that refused connects first.
func notOpening(flags uint32, then block) block {
	return slices.Concat(
		block{loadArgument(flags)},
		unless(bpf.JumpBitsNotSet, unix.MSG_FASTOPEN, block{refuse(unix.EOPNOTSUPP)}),
		then,
	)
}

// askWithPointer asks where an argument is not a null pointer.
func askWithPointer(argument uint32) block {
	low := bpf.LoadAbsolute{Off: offsetArguments + 2*word*argument, Size: word}
	high := bpf.LoadAbsolute{Off: low.Off + word, Size: word}
	return slices.Concat(
		block{low}, unless(bpf.JumpEqual, 0, block{ask}),
		block{high}, unless(bpf.JumpEqual, 0, block{ask}),
		block{allow},
	)
}

// askWithoutFlags asks where the flags in an argument are none: so resolvers receive, and
// little else does that receives much.
func askWithoutFlags(flags uint32) block {
	return slices.Concat(
		block{loadArgument(flags)},
		unless(bpf.JumpNotEqual, 0, block{ask}),
		block{allow},
	)
}

// loadArgument loads the low half of an argument, which is all of an int.
func loadArgument(n uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: offsetArguments + 2*word*n, Size: word}
}

// when is a block for the call of a number, which has been loaded.
func when(number uint32, then block) block { return unless(bpf.JumpNotEqual, number, then) }

// unless is a block that is passed over where what has been loaded compares so.
func unless(condition bpf.JumpTest, value uint32, then block) block {
	return slices.Concat(block{bpf.JumpIf{Cond: condition, Val: value, SkipTrue: uint8(len(then))}}, then)
}
