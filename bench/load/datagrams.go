//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// What the datagrams of a load look like.
const (
	datagramSize   = 512 // bytes for the target
	datagramWindow = 16  // how many are on their way at once in one association
	datagramWait   = 100 * time.Millisecond
)

// Datagrams sends datagrams to the target and back, in each of associations for the time d. The unit is a datagram that
// the proxy has passed on: two of them are there and back. What does not come back is not counted.
func Datagrams(ctx context.Context, p *Proxy, t *Target, associations int, d time.Duration) (Cost, error) {
	mapped := p.Protocol == Fixed && p.Process != nil
	at := netip.AddrPortFrom(t.Address().Addr(), 0)
	if mapped {
		at = t.Address() // where its connections go
	}
	to, err := t.echoDatagrams(ctx, at)
	if err != nil {
		return Cost{}, err
	}
	defer to.Close()
	target := udpAddress(to)
	if mapped {
		target = p.Address
	}
	var all []*association
	defer func() {
		for _, a := range all {
			a.close()
		}
	}()
	for range associations {
		a, err := p.associate(ctx, target)
		if err != nil {
			return Cost{}, err
		}
		all = append(all, a)
	}
	var count atomic.Int64
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var g gang
	for _, a := range all {
		g.run(func() error {
			for ctx.Err() == nil {
				back, err := a.window()
				if err != nil {
					stop()
					return err
				}
				count.Add(2 * int64(back))
			}
			return nil
		})
	}
	cost, err := turn(ctx, p, d, &count)
	stop()
	if fault := g.wait(); fault != nil {
		return Cost{}, fault
	}
	return cost, err
}

func udpAddress(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// echoDatagrams sends back what comes to the socket that it returns, until that is closed.
func (t *Target) echoDatagrams(ctx context.Context, at netip.AddrPort) (*net.UDPConn, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, err
	}
	socket := c.(*net.UDPConn)
	_ = socket.SetReadBuffer(4 << 20)
	t.wg.Go(func() {
		data := make([]byte, 64<<10)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(data)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = socket.WriteToUDPAddrPort(data[:n], from) // who is gone misses it
			}
		}
	})
	return socket, nil
}

// association is a client of UDP ASSOCIATE (RFC 1928, section 7).
type association struct {
	control  *net.TCPConn
	socket   *net.UDPConn
	datagram []byte // header and payload
}

// associate opens one to target.
func (p *Proxy) associate(ctx context.Context, target netip.AddrPort) (*association, error) {
	if p.Protocol == Fixed {
		return direct(ctx, target)
	}
	control, err := connect(ctx, p.Address)
	if err != nil {
		return nil, err
	}
	_ = control.SetDeadline(time.Now().Add(patience))
	relay, err := askAssociate(control)
	if err != nil {
		control.Close()
		return nil, err
	}
	_ = control.SetDeadline(time.Time{})
	socket, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		control.Close()
		return nil, err
	}
	ip, port := target.Addr().As4(), target.Port()
	datagram := append(append([]byte{0, 0, 0, 1}, ip[:]...), byte(port>>8), byte(port))
	return &association{control, socket, append(datagram, make([]byte, datagramSize)...)}, nil
}

// direct is what an association without a proxy is.
func direct(ctx context.Context, target netip.AddrPort) (*association, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp4", target.String())
	if err != nil {
		return nil, err
	}
	return &association{nil, c.(*net.UDPConn), make([]byte, datagramSize)}, nil
}

// askAssociate returns where the proxy takes datagrams.
func askAssociate(control net.Conn) (netip.AddrPort, error) {
	if err := exchange(control, []byte{5, 1, 0}, 2, func(answer []byte) bool { return answer[1] == 0 }); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := control.Write([]byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return netip.AddrPort{}, err
	}
	var answer [10]byte
	if _, err := io.ReadFull(control, answer[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("the proxy's answer: %w", err)
	}
	if answer[1] != 0 || answer[3] != 1 {
		return netip.AddrPort{}, fmt.Errorf("the proxy refuses: % x", answer)
	}
	port := uint16(answer[8])<<8 | uint16(answer[9])
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[4:8])), port), nil
}

// window sends datagramWindow datagrams, and returns how many of them came back. It waits no longer for one that is lost
// than datagramWait.
func (a *association) window() (back int, err error) {
	for range datagramWindow {
		if _, err := a.socket.Write(a.datagram); err != nil {
			return 0, err
		}
	}
	_ = a.socket.SetReadDeadline(time.Now().Add(datagramWait))
	data := make([]byte, len(a.datagram)+1)
	for back < datagramWindow {
		n, err := a.socket.Read(data)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return back, nil
		case err != nil:
			return back, err
		case n != len(a.datagram):
			return back, fmt.Errorf("a datagram of %d bytes came back, %d went", n, len(a.datagram))
		}
		back++
	}
	return back, nil
}

func (a *association) close() {
	if a.control != nil {
		a.control.Close()
	}
	a.socket.Close()
}
