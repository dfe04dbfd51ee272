package server

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSegmented is how many bytes the segments of one system call may have in
// all, what IP and UDP put in front of them set aside.
const maxSegmented = math.MaxUint16 - 48

// segments has the system cut one large datagram into many (UDP_SEGMENT), which
// then pass through most of it as one. It is for what a flow is made of: datagrams
// of one size to one address, of which the last may be shorter.
type segments struct {
	under atomic.Int64 // bytes: only what is shorter can be sent so; 0: nothing
}

// ask finds out whether the system can do it. One that cannot would send what it
// was to cut.
func (s *segments) ask(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) { // fails on a closed socket, which sends nothing
		if _, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err == nil {
			s.under.Store(maxSegmented)
		}
	})
}

// join returns the messages as one. It is not ok where that cannot be.
func (s *segments) join(ms []message) (joined message, ok bool) {
	if len(ms) < 2 {
		return joined, false
	}
	size, all := len(ms[0].Buffers[0]), 0
	for i := range ms {
		n := len(ms[i].Buffers[0])
		if n > size || n < size && i < len(ms)-1 || n == 0 || !sameAddress(ms[i].Addr, ms[0].Addr) {
			return joined, false
		}
		all += n
	}
	if int64(size) >= s.under.Load() || all > maxSegmented {
		return joined, false
	}
	joined.Addr, joined.OOB = ms[0].Addr, segmentSize(uint16(size))
	joined.Buffers = make([][]byte, len(ms))
	for i := range ms {
		joined.Buffers[i] = ms[i].Buffers[0]
	}
	return joined, true
}

// sameAddress reports whether two datagrams go to the same. Those of one flow
// share the address's memory.
func sameAddress(a, b net.Addr) bool {
	if a == b {
		return true
	}
	x, isUDP := a.(*net.UDPAddr)
	y, isUDPToo := b.(*net.UDPAddr)
	return isUDP && isUDPToo && x.AddrPort() == y.AddrPort()
}

// segmentSize returns the control message that says how long each segment is: its
// own length, in as many bytes as an address has, then level, type and content.
func segmentSize(size uint16) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	kind := oob[unix.SizeofCmsghdr-8:]
	if unix.SizeofPtr == 8 {
		binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	} else {
		binary.NativeEndian.PutUint32(oob, uint32(unix.CmsgLen(2)))
	}
	binary.NativeEndian.PutUint32(kind, unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(kind[4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], size)
	return oob
}

// refused notes why segments of that size were not taken, and reports whether
// each is to be sent by itself: the way to the target has no room for a segment
// in one packet, or a device on it cannot do this.
func (s *segments) refused(size int, err error) bool {
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMSGSIZE):
		s.under.Store(min(s.under.Load(), int64(size)))
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EOPNOTSUPP):
		s.under.Store(0)
	default:
		return false
	}
	return true
}
