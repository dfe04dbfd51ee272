//go:build linux

package main_test

// Networks of the tests' own: a gateway with the program on it, and a world
// outside in which every address there is answers.

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of the world.
const (
	paperGateway     = "198.51.100.1"        // the gateway's, towards the world
	paperNeighbour   = "198.51.100.2"        // the world's, towards the gateway
	paperSilent      = "198.19.0.1"          // packets to it vanish
	paperSilent6     = "2001:db8:dead::1"    // the same in IPv6
	paperUnreachable = "203.0.113.1"         // there is no route to it
	paperPublic      = "93.184.216.34"       // any server on the Internet
	paperPublic6     = "2606:2800:220::1946" // the same in IPv6
)

// paperNet is a network namespace, which goes when the test ends. A nil
// *paperNet is the network that the test runs in.
type paperNet struct {
	jobs   chan func()
	thread int // of the kernel
}

// newPaperNet makes a network with nothing but a loopback.
func newPaperNet(t *testing.T) *paperNet {
	t.Helper()
	n := &paperNet{jobs: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here, and the namespace with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.thread = unix.Gettid()
		made <- err
		for job := range n.jobs {
			job()
		}
	}()
	t.Cleanup(func() { close(n.jobs) })
	if err := <-made; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	n.ip(t, "link set lo up")
	return n
}

// do runs the function on a thread inside the network. The sockets it opens and
// the programs it starts stay inside.
func (n *paperNet) do(f func()) {
	if n == nil {
		f()
		return
	}
	done := make(chan struct{})
	n.jobs <- func() {
		defer close(done)
		f()
	}
	<-done
}

// ip runs ip(8) inside.
func (n *paperNet) ip(t *testing.T, line string) {
	t.Helper()
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command("ip", strings.Fields(line)...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", line, err, out)
	}
}

// listen opens a TCP listener inside, closed when the test ends.
func (n *paperNet) listen(t *testing.T, addr string) *net.TCPListener {
	t.Helper()
	var ln net.Listener
	var err error
	n.do(func() { ln, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// dial connects from inside; from may be empty.
func (n *paperNet) dial(t *testing.T, from string, to netip.AddrPort) *paperConn {
	t.Helper()
	c, err := n.tryDial(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return newPaperConn(t, c)
}

// tryDial is dial for connections that may fail.
func (n *paperNet) tryDial(from string, to netip.AddrPort) (c net.Conn, err error) {
	d := net.Dialer{Timeout: paperPatience}
	if from != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(paperAt(from, 0))
	}
	n.do(func() { c, err = d.DialContext(context.Background(), "tcp", to.String()) })
	return c, err
}

// paperWorld is a gateway and what lies beyond it.
type paperWorld struct {
	gateway, outside *paperNet
}

// newPaperWorld makes both. Outside, every address of both families is there,
// so that a packet that should not have been sent finds somebody to answer it.
func newPaperWorld(t *testing.T) paperWorld {
	t.Helper()
	w := paperWorld{newPaperNet(t), newPaperNet(t)}
	w.gateway.ip(t, fmt.Sprintf("link add world type veth peer name gate netns %d", w.outside.thread))
	for _, line := range []string{
		"addr add " + paperNeighbour + "/24 dev gate",
		"addr add 2001:db8:1::2/64 dev gate nodad",
		"link set gate up",
		"route add local 0.0.0.0/0 dev lo table main",
		"-6 route add local ::/0 dev lo table main",
		"route add blackhole 198.19.0.0/16",
		"-6 route add blackhole 2001:db8:dead::/48",
	} {
		w.outside.ip(t, line)
	}
	for _, line := range []string{
		"addr add " + paperGateway + "/24 dev world",
		"addr add 2001:db8:1::1/64 dev world nodad",
		"link set world up",
		"route add default via " + paperNeighbour,
		"-6 route add default via 2001:db8:1::2",
		"route add unreachable 203.0.113.0/24",
	} {
		w.gateway.ip(t, line)
	}
	return w
}

// paperTrap notes who was reached.
type paperTrap struct {
	mu  sync.Mutex
	hit map[string]int // by the address that was dialled
}

// set accepts whatever comes to the port, at every address inside n.
func (p *paperTrap) set(t *testing.T, n *paperNet, port uint16) {
	t.Helper()
	ln := n.listen(t, fmt.Sprintf("[::]:%d", port))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			at := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			p.mu.Lock()
			p.hit[at.String()]++
			p.mu.Unlock()
			c.Close()
		}
	}()
}

// hits returns how often the address was reached.
func (p *paperTrap) hits(addr string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit[addr]
}

// only checks that nothing was reached but the addresses.
func (p *paperTrap) only(t *testing.T, addrs ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, n := range p.hit {
		if !strings.Contains(" "+strings.Join(addrs, " ")+" ", " "+at+" ") {
			t.Errorf("%s was reached %d times", at, n)
		}
	}
}

// paperDNS answers name queries inside n, at addr, port 53, as lookup says:
// with the addresses of the family that is asked for, or, when ok is false,
// that there is no such name.
func paperDNS(t *testing.T, n *paperNet, addr string, lookup func(name string) (addrs []netip.Addr, ok bool)) {
	t.Helper()
	var pc net.PacketConn
	var err error
	n.do(func() { pc, err = net.ListenPacket("udp", net.JoinHostPort(addr, "53")) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := paperDNSAnswer(b[:size], lookup); answer != nil {
				_, _ = pc.WriteTo(answer, from) // the asker asks again
			}
		}
	}()
}

// paperDNSAnswer answers a query of one question (RFC 1035, 4.1).
func paperDNSAnswer(q []byte, lookup func(string) ([]netip.Addr, bool)) []byte {
	if len(q) < 12 {
		return nil
	}
	var labels []string
	at := 12
	for at < len(q) && q[at] != 0 {
		end := at + 1 + int(q[at])
		if end >= len(q) {
			return nil
		}
		labels = append(labels, string(q[at+1:end]))
		at = end
	}
	if at+5 > len(q) {
		return nil
	}
	kind, question := binary.BigEndian.Uint16(q[at+1:]), q[12:at+5]
	addrs, ok := lookup(strings.ToLower(strings.Join(labels, ".")))

	var records []byte
	count := 0
	for _, a := range addrs {
		if kind == 1 && a.Is4() || kind == 28 && a.Is6() {
			records = append(records, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0) // this name, IN, TTL 0
			records = binary.BigEndian.AppendUint16(records, uint16(a.BitLen()/8))
			records = append(records, a.AsSlice()...)
			count++
		}
	}
	code := byte(0)
	if !ok {
		code = 3
	}
	head := []byte{q[0], q[1], 0x84 | q[2]&1, 0x80 | code, 0, 1, 0, byte(count), 0, 0, 0, 0}
	return append(append(head, question...), records...)
}
