package server

import (
	"bytes"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSegments: what is sent as one arrives as it was, datagram by datagram, and
// whatever is no flow, or has no room in a packet, is sent as before.
func TestSegments(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sizes  []int
		joined bool
	}{
		{"a flow", []int{700, 700, 700, 700}, true},
		{"a flow whose last is shorter", []int{700, 700, 1}, true},
		{"longer than most packets", []int{2000, 2000, 2000}, true},
		{"the last is longer", []int{700, 700, 701}, false},
		{"one in the midst is shorter", []int{700, 699, 700}, false},
		{"an empty one", []int{700, 0}, false},
		{"nothing but empty ones", []int{0, 0}, false},
		{"one", []int{700}, false},
		{"more than one call can take", []int{40000, 40000}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
			s := newPacketSocket(from).(*batchSocket)
			ms := messagesTo(to.LocalAddr(), tt.sizes...)
			if _, ok := s.segments.join(ms); ok != tt.joined {
				t.Errorf("joined: %v, want %v", ok, tt.joined)
			}
			arrive(t, s, to, ms)
		})
	}
}

// TestSegmentsToSeveral: a datagram goes where it is addressed to.
func TestSegmentsToSeveral(t *testing.T) {
	from, first, second := udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0"), udpSocket(t, "127.0.0.1:0")
	ms := append(messagesTo(first.LocalAddr(), 10), messagesTo(second.LocalAddr(), 10)...)
	s := newPacketSocket(from).(*batchSocket)
	if n, err := s.write(ms); n != 2 || err != nil {
		t.Fatalf("%d were sent, %v", n, err)
	}
	for i, c := range []*net.UDPConn{first, second} {
		if got := receiveOne(t, c); !bytes.Equal(got, ms[i].Buffers[0]) {
			t.Errorf("socket %d got %d bytes", i, len(got))
		}
	}
}

// TestSegmentsWithoutRoom: loopback's packets are large, so the socket is given
// the system's answer of a way whose packets are not. Longer ones are sent
// without trying again, shorter ones still as a flow.
func TestSegmentsWithoutRoom(t *testing.T) {
	from, to := udpSocket(t, "[::1]:0"), udpSocket(t, "[::1]:0")
	s := newPacketSocket(from).(*batchSocket)
	if !s.segments.refused(1400, unix.EINVAL) {
		t.Fatal("nobody sends each by itself")
	}
	long, short := messagesTo(to.LocalAddr(), 1400, 1400), messagesTo(to.LocalAddr(), 1399, 1399)
	if _, ok := s.segments.join(long); ok {
		t.Error("what has no room is tried again")
	}
	if _, ok := s.segments.join(short); !ok {
		t.Error("what has room is not joined")
	}
	arrive(t, s, to, long)
	arrive(t, s, to, short)
	if s.segments.refused(1000, unix.EAGAIN) {
		t.Error("a full buffer is taken for a refusal")
	}
	if !s.segments.refused(1000, unix.EIO) {
		t.Fatal("nobody sends each by itself")
	}
	if _, ok := s.segments.join(short); ok {
		t.Error("a device that cannot do it is asked again")
	}
	arrive(t, s, to, short)
}

// messagesTo makes one message of each size, each of other bytes.
func messagesTo(to net.Addr, sizes ...int) []message {
	ms := make([]message, len(sizes))
	for i, size := range sizes {
		ms[i].Buffers, ms[i].Addr = [][]byte{bytes.Repeat([]byte{byte('a' + i)}, size)}, to
	}
	return ms
}

// arrive sends ms and wants them at to.
func arrive(t *testing.T, s *batchSocket, to *net.UDPConn, ms []message) {
	t.Helper()
	if n, err := s.write(ms); n != len(ms) || err != nil {
		t.Fatalf("%d of %d were sent, %v", n, len(ms), err)
	}
	for i := range ms {
		if got := receiveOne(t, to); !bytes.Equal(got, ms[i].Buffers[0]) {
			t.Errorf("datagram %d has %d bytes, want %d, or others", i, len(got), len(ms[i].Buffers[0]))
		}
	}
}

func receiveOne(t *testing.T, c *net.UDPConn) []byte {
	t.Helper()
	data := make([]byte, maxDatagram)
	n, err := c.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return data[:n]
}
