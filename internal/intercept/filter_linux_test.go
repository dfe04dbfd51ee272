//go:build amd64 || arm64

package intercept

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// shown is what a filter is shown of a call. The machine of x/net reads big-endian words,
// the kernel's reads its own: the words are what both see.
func shown(arch, number uint32, arguments ...uint64) []byte {
	words := make([]uint32, 16)
	words[offsetNumber/word], words[offsetArch/word] = number, arch
	for n, a := range arguments {
		words[offsetArguments/word+2*n], words[offsetArguments/word+2*n+1] = uint32(a), uint32(a>>32)
	}
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func TestFilter(t *testing.T) {
	const (
		allowed, asked = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF
		highPointer    = 1 << 40 // whose low half is zero
		fast           = unix.MSG_FASTOPEN
	)
	refused := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	vm, err := bpf.NewVM(filter())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		call []byte
		want uint32
	}{
		"read":                             {shown(nativeArch, unix.SYS_READ), allowed},
		"accept":                           {shown(nativeArch, unix.SYS_ACCEPT4), allowed},
		"connect":                          {shown(nativeArch, unix.SYS_CONNECT, 3, 1, 16), asked},
		"getpeername":                      {shown(nativeArch, unix.SYS_GETPEERNAME, 3, 1, 1), asked},
		"io_uring":                         {shown(nativeArch, unix.SYS_IO_URING_SETUP), refused(unix.ENOSYS)},
		"sendto without an address":        {shown(nativeArch, unix.SYS_SENDTO, 3, 1, 1, 0, 0, 0), allowed},
		"sendto with one":                  {shown(nativeArch, unix.SYS_SENDTO, 3, 1, 1, 0, 4096, 16), asked},
		"sendto with a high one":           {shown(nativeArch, unix.SYS_SENDTO, 3, 1, 1, 0, highPointer, 16), asked},
		"sendto that connects":             {shown(nativeArch, unix.SYS_SENDTO, 3, 1, 1, fast|unix.MSG_NOSIGNAL, 4096, 16), refused(unix.EOPNOTSUPP)},
		"sendmsg":                          {shown(nativeArch, unix.SYS_SENDMSG, 3, 1, unix.MSG_NOSIGNAL), allowed},
		"sendmsg that connects":            {shown(nativeArch, unix.SYS_SENDMSG, 3, 1, fast), refused(unix.EOPNOTSUPP)},
		"sendmmsg":                         {shown(nativeArch, unix.SYS_SENDMMSG, 3, 1, fast, 0), allowed},
		"sendmmsg that connects":           {shown(nativeArch, unix.SYS_SENDMMSG, 3, 1, 2, fast), refused(unix.EOPNOTSUPP)},
		"recvmsg":                          {shown(nativeArch, unix.SYS_RECVMSG, 3, 1, 0), asked},
		"recvmsg with flags":               {shown(nativeArch, unix.SYS_RECVMSG, 3, 1, unix.MSG_CMSG_CLOEXEC), allowed},
		"recvfrom without an address":      {shown(nativeArch, unix.SYS_RECVFROM, 3, 1, 1, 0, 0, 0), allowed},
		"recvfrom with one":                {shown(nativeArch, unix.SYS_RECVFROM, 3, 1, 1, 0, highPointer, 1), asked},
		"TCP":                              {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0), allowed},
		"TCP by name":                      {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP), allowed},
		"Multipath TCP":                    {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), allowed},
		"SCTP as a stream":                 {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), refused(unix.EPROTONOSUPPORT)},
		"SCTP as packets":                  {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP), refused(unix.ESOCKTNOSUPPORT)},
		"UDP":                              {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0), asked},
		"ping":                             {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6), asked},
		"raw":                              {shown(nativeArch, unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), asked},
		"unix":                             {shown(nativeArch, unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0), allowed},
		"netlink":                          {shown(nativeArch, unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0), allowed},
		"another way to call, such as x32": {shown(nativeArch, otherNumbers|unix.SYS_READ), refused(unix.ENOSYS)},
		"32 bits: read":                    {shown(foreignArch, 3), allowed},
		"32 bits: all that connects":       {shown(foreignArch, 102), refused(unix.ENOSYS)},
		"32 bits: io_uring":                {shown(foreignArch, 425), refused(unix.ENOSYS)},
		"an unknown architecture":          {shown(0xdead, unix.SYS_READ), refused(unix.ENOSYS)},
	} {
		got, err := vm.Run(c.call)
		if err != nil || uint32(got) != c.want {
			t.Errorf("%s: %#x, %v; want %#x", name, uint32(got), err, c.want)
		}
	}
	for _, number := range foreignCalls {
		if got, err := vm.Run(shown(foreignArch, number)); err != nil || uint32(got) != refused(unix.ENOSYS) {
			t.Errorf("32 bits, %d: %#x, %v", number, got, err)
		}
	}
}
