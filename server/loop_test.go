package server

import (
	"context"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// resolving grants names by a table, and addresses as they are.
func resolving(names map[string][]netip.Addr) deciding {
	return func(ctx context.Context, r *Request) (Grant, error) {
		if r.Target.Name == "" {
			return anything(ctx, r)
		}
		return Grant{Rule: "names", Addrs: names[r.Target.Name]}, nil
	}
}

func addrs(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

// quietHost is an address of loopback from which nobody calls, so that every
// port of it is free.
var quietHost = netip.MustParseAddr("127.0.77.1")

// TestLoopsAreRefused: a target that is this proxy, in whatever way it is
// written and whichever of its listeners it is.
func TestLoopsAreRefused(t *testing.T) {
	own, err := LocalAddrs()
	if err != nil || len(own) == 0 {
		t.Fatalf("%v, %v; want addresses", own, err)
	}
	spellings := []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "::ffff:127.0.0.1",
		"::ffff:7f00:1", "[::ffff:127.0.0.1]", "self.example",
	}
	everywhere := append(spellings, "127.0.0.9", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "[::1]", "self6.example")
	for _, a := range own {
		everywhere = append(everywhere, a.String())
	}
	policy := resolving(map[string][]netip.Addr{
		"self.example":  addrs("::ffff:127.0.0.1", "127.0.0.1"),
		"self6.example": addrs("::1"),
	})
	for _, test := range []struct {
		listen string
		hosts  []string
	}{
		{"127.0.0.1:0", spellings},
		{"0.0.0.0:0", everywhere},
		{"[::]:0", everywhere},
		{"[::1]:0", []string{"::1", "[::1]", "self6.example"}},
	} {
		t.Run(test.listen, func(t *testing.T) {
			r := newRig(t, &Server{Policy: policy})
			socket, door := listenTCP(t, test.listen), listenTCP(t, "127.0.0.1:0")
			r.serve(socket, Listener{})
			r.serve(door, Listener{})
			port := addrPort(socket.Addr()).Port()
			proxytest.Eventually(t, "both are served", func() bool { return r.serving() == 2 })
			for _, host := range test.hosts {
				c := proxytest.Dial(t, door.Addr().String())
				proxytest.Say(t, c, proxytest.Connect4a(host, port, "bob"))
				proxytest.Refused4(t, c, socks.Rejected4)
				r.next(Loop)
			}
		})
	}
}

// TestOtherTargetsAreNoLoops: the same address with another port, and the same
// port of another address.
func TestOtherTargetsAreNoLoops(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	port := netip.MustParseAddrPort(r.address).Port()
	neighbour := listenTCP(t, netip.AddrPortFrom(quietHost, port).String())
	for _, to := range []netip.AddrPort{proxytest.Echo(t, "127.0.0.1"), addrPort(neighbour.Addr())} {
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, proxytest.Connect4(to, "bob"))
		proxytest.Granted4(t, c)
		c.Close()
	}
	far, err := neighbour.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
}

// TestNameWithOurAddressAmongOthers is dialled at the others.
func TestNameWithOurAddressAmongOthers(t *testing.T) {
	echo := proxytest.Echo(t, "127.0.0.2")
	r := newRig(t, &Server{Policy: resolving(map[string][]netip.Addr{
		"mixed.example": addrs(quietHost.String(), "224.0.0.1", "0.0.0.0", "127.0.0.2", "255.255.255.255"),
	})})
	at := netip.AddrPortFrom(quietHost, echo.Port()).String()
	r.serve(listenTCP(t, at), Listener{})
	c := proxytest.Dial(t, at)
	proxytest.Say(t, c, proxytest.Connect4a("mixed.example", echo.Port(), "bob"))
	proxytest.Granted4(t, c)
	proxytest.Say(t, c, []byte("to the right one"))
	proxytest.Hear(t, c, "to the right one")
	c.Close()
	if e := r.next(Closed); e.Address != echo {
		t.Errorf("recorded %v, want %v", e.Address, echo)
	}
}

// TestOurAddressIsFreeOnceNotServed: what was ours is a target like any other.
func TestOurAddressIsFreeOnceNotServed(t *testing.T) {
	r := newRig(t, &Server{Policy: deciding(anything)})
	door := listenTCP(t, "127.0.0.1:0")
	r.serve(door, Listener{})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	formerly := listenTCP(t, "127.0.0.2:0")
	go func() { served <- r.server.Serve(ctx, formerly, Listener{}) }()
	at := addrPort(formerly.Addr())
	ask := func() socks.Reply4 {
		c := proxytest.Dial(t, door.Addr().String())
		defer c.Close()
		proxytest.Say(t, c, proxytest.Connect4(at, "bob"))
		return proxytest.ReadReply4(t, c)
	}
	proxytest.Eventually(t, "the listener is served", func() bool { return r.server.isSelf(at) })
	if got := ask(); got.Code != socks.Rejected4 {
		t.Errorf("while it is served: %d, want 91", got.Code)
	}
	cancel()
	<-served
	listenTCP(t, at.String())
	proxytest.Eventually(t, "the address is a target", func() bool { return ask().Code == socks.Granted4 })
}

// TestAdvertisedAddressIsALoop: behind a NAT that leads our own traffic back to
// us, the address outside stands for the one that is listened on.
func TestAdvertisedAddressIsALoop(t *testing.T) {
	outside := netip.MustParseAddr("203.0.113.7")
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{Advertise: outside})
	c := proxytest.Dial(t, r.address)
	port := netip.MustParseAddrPort(r.address).Port()
	proxytest.Say(t, c, proxytest.Connect4(netip.AddrPortFrom(outside, port), "bob"))
	proxytest.Refused4(t, c, socks.Rejected4)
	r.next(Loop)
}
