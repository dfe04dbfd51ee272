package server

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
)

// message is a datagram on its way: bytes and an address. The type is the same
// for both families.
type message = ipv4.Message

// packetSocket is a UDP socket that moves datagrams in batches. One goroutine
// may read while any number write. Close ends a wait.
type packetSocket interface {
	// wait returns when there may be something to read. It blocks without
	// holding memory, where the system can tell.
	wait() error
	// read fills the buffers of the messages and says how many came. It blocks
	// only where wait does not.
	read(ms []message) (int, error)
	// write sends the messages and says how many went, from the first on. An
	// error means that the first did not go. It does not wait for room.
	write(ms []message) (int, error)
	// Close gives the socket up. It may be called again.
	Close() error
}

// plainSocket is the packetSocket for any net.PacketConn: one datagram at a time.
type plainSocket struct{ net.PacketConn }

func (plainSocket) wait() error { return nil }

func (s plainSocket) read(ms []message) (int, error) {
	n, from, err := s.ReadFrom(ms[0].Buffers[0])
	if err != nil {
		return 0, err
	}
	ms[0].N, ms[0].Addr = n, from
	return 1, nil
}

func (s plainSocket) write(ms []message) (int, error) {
	for i := range ms {
		if _, err := s.WriteTo(ms[i].Buffers[0], ms[i].Addr); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

// passes reports whether a socket that failed to read so can go on: it tells of
// an earlier datagram that did not arrive (ICMP), or of one that is no use.
func passes(err error) bool {
	for _, known := range []error{
		syscall.EAGAIN, syscall.EINTR, syscall.EMSGSIZE, syscall.ECONNREFUSED, syscall.ECONNRESET,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOBUFS, syscall.ENOMEM,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// udpAddrPort returns the address of a datagram's sender, unmapped, or an
// invalid one.
func udpAddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	if known, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap = known.AddrPort()
	} else if a != nil {
		ap, _ = netip.ParseAddrPort(a.String()) // what is no address is nobody's
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

const (
	batchSize   = 16      // datagrams that one system call moves at most
	maxHeader   = 262     // bytes of the header in front of a datagram from a name of 255 bytes
	maxDatagram = 1 << 16 // bytes of the buffer for one: more than can come
)

// batch is the memory for moving datagrams, 64 KiB for each. A socket's reader
// holds one only while it has datagrams in hand, but for a plainSocket's.
type batch struct {
	room [][]byte           // for one datagram each, and a header in front of it
	in   []message          // what was read, behind the room for a header
	out  [families]outgoing // what is to be sent
}

func newBatch(size int) *batch {
	b := &batch{room: make([][]byte, size), in: make([]message, size)}
	memory := make([]byte, size*(maxHeader+maxDatagram))
	for i := range b.in {
		at := i * (maxHeader + maxDatagram)
		b.room[i] = memory[at : at+maxHeader+maxDatagram]
		b.in[i].Buffers = [][]byte{b.room[i][maxHeader:]}
	}
	for i := range b.out {
		b.out[i].messages = make([]message, 0, size)
	}
	return b
}

// received returns the i-th datagram that was read.
func (b *batch) received(i int) []byte { return b.in[i].Buffers[0][:b.in[i].N] }

// headed returns the i-th datagram with a header put in front of it.
func (b *batch) headed(i int, header []byte) []byte {
	at := maxHeader - len(header)
	copy(b.room[i][at:], header)
	return b.room[i][at : maxHeader+b.in[i].N]
}

// outgoing is what one socket is to send.
type outgoing struct {
	messages []message
	sizes    [batchSize]int // bytes of each that count
}

// add takes a datagram of which so many bytes count. It holds a batch of them.
func (o *outgoing) add(datagram []byte, to net.Addr, size int) {
	n := len(o.messages)
	o.messages = o.messages[:n+1]
	m := &o.messages[n]
	if m.Buffers == nil {
		m.Buffers = make([][]byte, 1)
	}
	m.Buffers[0], m.Addr = datagram, to
	o.sizes[n] = size
}

// flush sends all and forgets it. What cannot be sent at once is dropped. It
// returns how many went and how many of their bytes count.
func (o *outgoing) flush(s packetSocket) (sent, size int) {
	for at := 0; at < len(o.messages); {
		n, err := s.write(o.messages[at:])
		for _, one := range o.sizes[at : at+n] {
			size += one
		}
		sent += n
		at += n
		if err != nil || n == 0 {
			at++
		}
	}
	for i := range o.messages {
		o.messages[i].Buffers[0], o.messages[i].Addr = nil, nil
	}
	o.messages = o.messages[:0]
	return sent, size
}

// batches are pools of them. The zero value is ready.
type batches struct{ full, single sync.Pool }

// take returns a batch for a socket's reader.
func (p *batches) take(s packetSocket) *batch {
	pool, size := &p.full, batchSize
	if _, plain := s.(plainSocket); plain {
		pool, size = &p.single, 1
	}
	if b, ok := pool.Get().(*batch); ok {
		return b
	}
	return newBatch(size)
}

func (p *batches) giveBack(b *batch) {
	if len(b.in) == 1 {
		p.single.Put(b)
		return
	}
	p.full.Put(b)
}
