//go:build amd64 || arm64

package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// resolver answers the questions for addresses that programs ask name servers. It has a
// socket of this machine, to which theirs are led.
type resolver struct {
	at      loopbacks
	sockets []*net.UDPConn
	names   *names

	mu  sync.Mutex
	led map[netip.AddrPort]netip.AddrPort // the name servers that programs think they talk to, by the programs' own ends
}

// maxLed is how many sockets of programs are remembered.
const maxLed = 1 << 16

// openResolver opens the socket. Whoever does that calls serve, and then close.
func openResolver(ctx context.Context, n *names) (*resolver, error) {
	r := &resolver{names: n, led: map[netip.AddrPort]netip.AddrPort{}}
	var config net.ListenConfig
	s, err := config.ListenPacket(ctx, "udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.sockets = append(r.sockets, s.(*net.UDPConn))
	r.at.v4 = s.LocalAddr().(*net.UDPAddr).AddrPort()
	if s, err := config.ListenPacket(ctx, "udp6", "[::1]:0"); err == nil { // there may be no IPv6
		r.sockets = append(r.sockets, s.(*net.UDPConn))
		r.at.v6 = s.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return r, nil
}

// serve answers until close.
func (r *resolver) serve() {
	var answering sync.WaitGroup
	for _, s := range r.sockets {
		answering.Go(func() { r.answer(s) })
	}
	answering.Wait()
}

func (r *resolver) close() {
	for _, s := range r.sockets {
		s.Close()
	}
}

// answer answers the datagrams of programs, and of nobody else.
func (r *resolver) answer(s *net.UDPConn) {
	const most = 1 << 16 // bytes
	question := make([]byte, most)
	for {
		n, from, err := s.ReadFromUDPAddrPort(question)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if _, ok := r.server(unmapped(from)); !ok || err != nil {
			continue
		}
		if answer := answerQuery(r.names, question[:n]); answer != nil {
			_, _ = s.WriteToUDPAddrPort(answer, from) // whoever misses it asks again
		}
	}
}

// answerStream answers the questions that come over TCP (RFC 1035, section 4.2.2), until
// the program has no more.
func (r *resolver) answerStream(c net.Conn) {
	const patience = 30 * time.Second
	question := make([]byte, 1<<16)
	for {
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, question[:2]); err != nil {
			return
		}
		size := binary.BigEndian.Uint16(question)
		if _, err := io.ReadFull(c, question[:size]); err != nil {
			return
		}
		answer := answerQuery(r.names, question[:size])
		if answer == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// lead notes that a program asks here, who thinks that this is a certain name server.
func (r *resolver) lead(program, server netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.led) >= maxLed {
		for any := range r.led {
			delete(r.led, any)
			break
		}
	}
	r.led[program] = server
}

// isIdle reports whether nobody asks here.
func (r *resolver) isIdle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.led) == 0
}

// server returns which name server a program thinks that it talks to.
func (r *resolver) server(program netip.AddrPort) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !program.Addr().IsUnspecified() {
		server, ok := r.led[program]
		return server, ok
	}
	for _, loopback := range []netip.AddrPort{r.at.v4, r.at.v6} { // it has no end before it has sent something
		if server, ok := r.led[netip.AddrPortFrom(loopback.Addr(), program.Port())]; ok {
			return server, true
		}
	}
	return netip.AddrPort{}, false
}
