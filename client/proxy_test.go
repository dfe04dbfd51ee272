package client_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// localProxy is a SOCKS 4a proxy on loopback, small and trusting: enough for
// the examples and for tests over real TCP. It refuses the userids "ghost" (92)
// and "mallory" (93), and knows only the host names in hosts.
type localProxy struct {
	ln    net.Listener
	hosts map[string]string // name:port -> the ip:port that it stands for
	wg    sync.WaitGroup
}

func startProxy(hosts map[string]string) *localProxy {
	p := &localProxy{ln: listenLocal(), hosts: hosts}
	p.wg.Go(func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() {
				defer c.Close()
				p.serve(c.(*net.TCPConn))
			})
		}
	})
	return p
}

func listenLocal() net.Listener {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	return ln
}

func (p *localProxy) Addr() string { return p.ln.Addr().String() }

// Close returns when all connections have ended.
func (p *localProxy) Close() {
	p.ln.Close()
	p.wg.Wait()
}

func (p *localProxy) serve(c *net.TCPConn) {
	r, err := receive(c)
	if err != nil {
		return
	}
	target := netip.AddrPortFrom(r.IP, r.Port).String()
	if r.Is4a() {
		target = p.hosts[socks.Addr{Name: r.Host, Port: r.Port}.String()]
	}
	switch {
	case r.UserID == "ghost":
		send(c, socks.NoIdentd4, c.RemoteAddr())
	case r.UserID == "mallory":
		send(c, socks.OtherUser4, c.RemoteAddr())
	case target == "":
		send(c, socks.Rejected4, c.RemoteAddr())
	case r.Command == socks.Connect:
		connect(c, target)
	case r.Command == socks.Bind:
		bind(c, netip.MustParseAddrPort(target).Addr())
	}
}

func receive(c net.Conn) (socks.Request4, error) {
	var have []byte
	for {
		r, _, err := socks.ParseRequest4(have, socks.DefaultUserID)
		if !errors.Is(err, socks.ErrShort) {
			return r, err
		}
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return r, err
		}
		have = append(have, b[0])
	}
}

func send(c net.Conn, code socks.Code4, addr net.Addr) bool {
	_, err := c.Write(socks.NewReply4(code, netip.MustParseAddrPort(addr.String())).Append(nil))
	return err == nil
}

func connect(c *net.TCPConn, target string) {
	out, err := net.Dial("tcp4", target)
	if err != nil {
		send(c, socks.Rejected4, c.RemoteAddr())
		return
	}
	defer out.Close()
	if send(c, socks.Granted4, out.LocalAddr()) {
		relay(c, out.(*net.TCPConn))
	}
}

// bind leaves its address out of the first reply, as proxies with one address may.
func bind(c *net.TCPConn, peer netip.Addr) {
	ln := listenLocal()
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if !send(c, socks.Granted4, &net.TCPAddr{IP: net.IPv4zero, Port: port}) {
		return
	}
	in, err := ln.Accept()
	if err != nil {
		return
	}
	defer in.Close()
	code := socks.Granted4
	if netip.MustParseAddrPort(in.RemoteAddr().String()).Addr() != peer {
		code = socks.Rejected4
	}
	if send(c, code, in.RemoteAddr()) && code == socks.Granted4 {
		relay(c, in.(*net.TCPConn))
	}
}

// relay passes on bytes and half-closes until both directions have ended.
func relay(a, b *net.TCPConn) {
	var wg sync.WaitGroup
	pipe := func(dst, src *net.TCPConn) {
		if _, err := io.Copy(dst, src); err != nil {
			dst.SetDeadline(time.Unix(1, 0))
			src.SetDeadline(time.Unix(1, 0))
		}
		dst.CloseWrite()
	}
	wg.Go(func() { pipe(a, b) })
	pipe(b, a)
	wg.Wait()
}
