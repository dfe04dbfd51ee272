//go:build amd64 || arm64

package intercept

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxAddress is how many bytes of an address are looked at: as many as the longest of
// those that matter has (struct sockaddr_un). The kernel takes addresses of up to
// largestAddress (struct sockaddr_storage).
const (
	maxAddress     = unix.SizeofSockaddrUnix
	largestAddress = 128
)

// address is where a program wants to go.
type address struct {
	family uint16         // as the program has said
	to     netip.AddrPort // of AF_INET and AF_INET6, as it was spelled
	path   string         // of AF_UNIX, where it has a name in the file system
}

// parseAddress reads an address as programs hand it to the kernel (struct sockaddr).
// It is false where it is too short for its family, which the kernel refuses.
func parseAddress(b []byte) (address, bool) {
	const family = 2 // bytes
	if len(b) < family {
		return address{}, false
	}
	a := address{family: binary.NativeEndian.Uint16(b)}
	switch a.family {
	case unix.AF_INET:
		return a, a.parse4(b)
	case unix.AF_INET6:
		return a, a.parse6(b)
	case unix.AF_UNIX:
		path, _, _ := bytes.Cut(b[family:], []byte{0})
		a.path = string(path)
	}
	return a, true
}

// parse4 reads a struct sockaddr_in.
func (a *address) parse4(b []byte) bool {
	if len(b) < unix.SizeofSockaddrInet4 {
		return false
	}
	a.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	return true
}

// parse6 reads a struct sockaddr_in6. The kernel takes one without a scope, too.
func (a *address) parse6(b []byte) bool {
	const withoutScope = unix.SizeofSockaddrInet6 - 4
	if len(b) < withoutScope {
		return false
	}
	ip := netip.AddrFrom16([16]byte(b[8:24]))
	if len(b) >= unix.SizeofSockaddrInet6 && ip.IsLinkLocalUnicast() {
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
	}
	a.to = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
	return true
}

// isHere reports whether an address is this machine's own by definition: loopback, and
// the unspecified one, which the kernel takes for it.
func isHere(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsUnspecified()
}

// appendAddress is parseAddress backwards, for AF_INET and AF_INET6.
func appendAddress(b []byte, to netip.AddrPort) []byte {
	if to.Addr().Is4() {
		b = binary.NativeEndian.AppendUint16(b, unix.AF_INET)
		b = binary.BigEndian.AppendUint16(b, to.Port())
		return append(append(b, to.Addr().AsSlice()...), make([]byte, 8)...)
	}
	b = binary.NativeEndian.AppendUint16(b, unix.AF_INET6)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(append(b, 0, 0, 0, 0), to.Addr().AsSlice()...) // no flow
	scope, _ := strconv.ParseUint(to.Addr().Zone(), 10, 32)   // none: 0
	return binary.NativeEndian.AppendUint32(b, uint32(scope))
}
