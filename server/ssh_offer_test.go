//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// offering grants what anything does, and the virtual port intranet.
func offering(ctx context.Context, r *Request) (Grant, error) {
	if r.Target.Name == "intranet" {
		return Grant{Rule: "intranet", Virtual: true, Identity: r.Identity}, nil
	}
	g, err := anything(ctx, r)
	g.Bind.AnyPeer, g.Identity = true, r.Identity
	return g, err
}

// signIn is a client of SSH over a connection.
func signIn(tb testing.TB, c net.Conn) *ssh.Client {
	tb.Helper()
	conn, channels, requests, err := ssh.NewClientConn(c, "", proxytest.SSHConfig("fred", "secret"))
	if err != nil {
		tb.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	tb.Cleanup(func() { client.Close() })
	return client
}

// offerIntranet offers the virtual port; what visitors it gets are for the caller
// to accept.
func offerIntranet(tb testing.TB, client *ssh.Client) offeredPort {
	tb.Helper()
	ln := client.HandleChannelOpen("forwarded-tcpip")
	requests(tb, client, "tcpip-forward", true)
	o := offeredPort{make(chan visitorConn, 64)}
	go func() {
		defer close(o.visitors)
		for one := range ln {
			if c, err := accept(one); err == nil {
				o.visitors <- c
			}
		}
	}()
	return o
}

// offeredPort brings the visitors of an offer.
type offeredPort struct{ visitors chan visitorConn }

// Accept returns the next one.
func (o offeredPort) Accept() (visitorConn, error) {
	c, more := <-o.visitors
	if !more {
		return c, io.EOF
	}
	return c, nil
}

func accept(one ssh.NewChannel) (c visitorConn, err error) {
	var f sshForward
	if err := ssh.Unmarshal(one.ExtraData(), &f); err != nil || f.Host != "intranet" || f.Port != 80 {
		return c, fmt.Errorf("a visitor of %q, %d: %w", f.Host, f.Port, err)
	}
	channel, requests, err := one.Accept()
	if err != nil {
		return c, err
	}
	go ssh.DiscardRequests(requests)
	return visitorConn{Channel: channel}, nil
}

// visitorConn is a channel as far as a test needs a connection.
type visitorConn struct {
	ssh.Channel
	net.Conn
}

func (v visitorConn) Read(b []byte) (int, error)  { return v.Channel.Read(b) }
func (v visitorConn) Write(b []byte) (int, error) { return v.Channel.Write(b) }
func (v visitorConn) Close() error                { return v.Channel.Close() }
func (v visitorConn) CloseWrite() error           { return v.Channel.CloseWrite() }

// visit asks for the virtual port by SOCKS 5, over c.
func visit(tb testing.TB, c net.Conn) (granted bool) {
	tb.Helper()
	proxytest.Say(tb, c, slices.Concat(proxytest.Greeting5(socks.NoAuth), []byte("\x05\x01\x00\x03\x08intranet\x00\x50")))
	granted, err := proxytest.SOCKS5("", "").Answer(c)
	if err != nil {
		tb.Fatal(err)
	}
	return granted
}

// mustVisit is a visitor in memory whom the port was granted.
func (r *rig) mustVisit() *proxytest.Conn {
	r.Helper()
	c := r.client()
	if !visit(r, c) {
		r.Fatal("not granted")
	}
	return c
}

// next returns the next visitor of an offer.
func (o offeredPort) next(tb testing.TB) visitorConn {
	tb.Helper()
	c, err := o.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// hearsAll reads what is wanted, then the end that is.
func hearsAll(tb testing.TB, from io.Reader, want string, end error) {
	tb.Helper()
	if all, err := io.ReadAll(from); string(all) != want || !errors.Is(err, end) {
		tb.Errorf("%q, then %v; want %q, then %v", all, err, want, end)
	}
}

// sshOffer is what a request for a port carries.
type sshOffer struct {
	Host string
	Port uint32
}

// requests asks for the virtual port, or to take it back.
func requests(tb testing.TB, client *ssh.Client, request string, want bool) {
	tb.Helper()
	ok, _, err := client.SendRequest(request, true, ssh.Marshal(sshOffer{"intranet", 80}))
	if ok != want || err != nil {
		tb.Errorf("%s: %v, %v; want %v", request, ok, err, want)
	}
}

// revoking is a judge to whom only those requests have lost their right.
func revoking(which func(*Request) bool) Judge {
	return func(h Held) (time.Time, error) {
		if which(&h.Request) {
			return time.Time{}, Revoked
		}
		return time.Time{}, nil
	}
}

// newIntranet is a server in memory, and how to connect to it.
func newIntranet(tb testing.TB) *rig {
	tb.Helper()
	return inMemory(tb, &Server{Policy: deciding(offering), Authenticator: door{login: LoginOptional}}, sshListener(tb))
}

// TestVirtualPort: a visitor is brought to who offers the port, and each end's FIN
// to the other.
func TestVirtualPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		if visit(t, r.client()) {
			t.Error("granted, and nobody offers it")
		}
		if e := r.next(Unreachable); e.Target.Name != "intranet" {
			t.Errorf("the record says %+v", e.Record)
		}
		client := signIn(t, r.client())
		offer := offerIntranet(t, client)
		visitor := r.mustVisit()
		far := offer.next(t)
		proxytest.Say(t, visitor, []byte("question"))
		_ = visitor.CloseWrite()
		hearsAll(t, far, "question", nil)
		proxytest.Say(t, far, []byte("answer"))
		_ = far.CloseWrite()
		hearsAll(t, visitor, "answer", nil)
		if e := r.next(Closed); e.Up() != 8 || e.Down() != 6 || e.Protocol != SOCKS5 || !e.Address.IsValid() {
			t.Errorf("the record says %+v", e.Record)
		}
		client.Close()
		if e := r.next(Closed); e.Protocol != SSH || e.Command != socks.Bind || e.Identity.Name != "fred" || e.Target.String() != "intranet:80" || !e.Offered {
			t.Errorf("the record of the offer says %+v", e.Record)
		}
	})
}

// TestVirtualPortIsCut: a connection that ends, however it does, is a reset to the
// visitor, and the next one goes to who has come back.
func TestVirtualPortIsCut(t *testing.T) {
	for name, cut := range map[string]func(*ssh.Client, *proxytest.Conn){
		"reset": func(_ *ssh.Client, c *proxytest.Conn) { proxytest.Reset(c) },
		"FIN":   func(_ *ssh.Client, c *proxytest.Conn) { c.Close() },
		"close": func(c *ssh.Client, _ *proxytest.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newIntranet(t)
				conn := r.client()
				client := signIn(t, conn)
				offer := offerIntranet(t, client)
				visitor := r.mustVisit()
				far := offer.next(t)
				proxytest.Say(t, far, []byte("half a sent"))
				proxytest.Hear(t, visitor, "half a sent")
				again := offerIntranet(t, signIn(t, r.client()))
				cut(client, conn)
				hearsAll(t, visitor, "", syscall.ECONNRESET)
				next := r.mustVisit()
				far = again.next(t)
				proxytest.Say(t, far, []byte("here"))
				proxytest.Hear(t, next, "here")
			})
		})
	}
}

// TestSilentOffer: an offer whose client says nothing any more is passed over as
// soon as it is known, and ends when it has not answered in time.
func TestSilentOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		gone := &stalled{Conn: r.client()}
		offerIntranet(t, signIn(t, gone))
		gone.stop()
		again := offerIntranet(t, signIn(t, r.client()))
		time.Sleep(3 * time.Second) // the first one owes an answer by then
		began := time.Now()
		r.mustVisit()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		again.next(t).Close()
		time.Sleep(time.Minute)
		if n := len(r.server.Sessions()); n > 2 { // the second offer, and maybe the visitor
			t.Errorf("%d sessions are open", n)
		}
	})
}

// stalled is a connection that can be made one by which nothing comes any more.
type stalled struct {
	*proxytest.Conn
	mu   sync.Mutex
	stay chan struct{}
}

func (s *stalled) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stay = make(chan struct{})
}

func (s *stalled) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.mu.Lock()
	stay := s.stay
	s.mu.Unlock()
	if stay != nil && err == nil {
		for err == nil {
			_, err = s.Conn.Read(b) // and nobody hears of it
		}
		return 0, err
	}
	return n, err
}

// TestOffersShare: several offers of one port have the same number of visitors.
func TestOffersShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		counts := make([]int, 3)
		var wg sync.WaitGroup
		for i := range counts {
			offer := offerIntranet(t, signIn(t, r.client()))
			wg.Go(func() {
				for {
					if _, err := offer.Accept(); err != nil {
						return
					}
					counts[i]++
				}
			})
		}
		for range 12 {
			r.mustVisit()
		}
		synctest.Wait()
		r.server.Close()
		wg.Wait()
		if !slices.Equal(counts, []int{4, 4, 4}) {
			t.Errorf("%v visitors", counts)
		}
	})
}

// TestOfferFailsOver: a client that refuses a visitor is no reason to refuse it
// while another offers.
func TestOfferFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		for range 2 {
			refuses := signIn(t, r.client())
			go refuseAll(refuses.HandleChannelOpen("forwarded-tcpip"))
			requests(t, refuses, "tcpip-forward", true)
		}
		if visit(t, r.client()) {
			t.Error("granted, and all refuse")
		}
		r.next(Refused)
		offerIntranet(t, signIn(t, r.client()))
		for range 5 {
			r.mustVisit()
		}
	})
}

// TestVisitorsWait: where a client has as many visitors as it may have, the next one waits
// until one has left, for as long as a target may take.
func TestVisitorsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		offer := offerIntranet(t, signIn(t, r.client()))
		var visitors []*proxytest.Conn
		var fars []visitorConn
		for range sshChannels {
			visitors = append(visitors, r.mustVisit())
			fars = append(fars, offer.next(t))
		}
		granted := make(chan bool, 1)
		go func() { granted <- visit(t, r.client()) }()
		synctest.Wait()
		select {
		case <-granted:
			t.Fatal("it did not wait")
		default:
		}
		visitors[0].Close()
		fars[0].Close()
		if !<-granted {
			t.Error("not granted, and one has left")
		}
		r.next(Closed)
		if visit(t, r.client()) {
			t.Error("granted, and all are there")
		}
		r.next(TimedOut)
	})
}

// TestLateOffer: a client that takes a visitor who has left by then is told at once
// that nobody is there.
func TestLateOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		slow := signIn(t, r.client())
		visitors := slow.HandleChannelOpen("forwarded-tcpip")
		requests(t, slow, "tcpip-forward", true)
		for range 2 * sshChannels { // they may hold nothing of the connection
			c := r.client()
			proxytest.Say(t, c, slices.Concat(proxytest.Greeting5(socks.NoAuth), []byte("\x05\x01\x00\x03\x08intranet\x00\x50")))
			one := <-visitors
			_ = c.SetLinger(0)
			c.Close()
			r.next(ClientReset)
			channel, gone, err := one.Accept()
			if err != nil {
				t.Fatal(err)
			}
			hearsAll(t, channel, "", nil)
			_ = channel.Close() // fails only where the server has closed
			for range gone {
			}
		}
	})
}

func refuseAll(visitors <-chan ssh.NewChannel) {
	for one := range visitors {
		_ = one.Reject(ssh.ConnectionFailed, "nothing listens there") // fails only at the end
	}
}

// TestOfferEnds: with a right that is gone, and with the offer taken back.
func TestOfferEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		client := signIn(t, r.client())
		offer := offerIntranet(t, client)
		visitor := r.mustVisit()
		offer.next(t)
		// The rule for offers is gone, that for visitors is not.
		r.server.Review(revoking(func(q *Request) bool { return q.Command == socks.Bind }))
		if e := r.next(Revoked); e.Command != socks.Bind {
			t.Errorf("the record says %+v", e.Record)
		}
		hearsAll(t, visitor, "", syscall.ECONNRESET)
		r.next(TargetReset)

		r.server.Review(revoking(func(*Request) bool { return false }))
		requests(t, client, "cancel-tcpip-forward", false)
		requests(t, client, "tcpip-forward", true)
		requests(t, client, "tcpip-forward", false)
		requests(t, client, "cancel-tcpip-forward", true)
		synctest.Wait()
		if visit(t, r.client()) {
			t.Error("granted, and the offer was taken back")
		}
		// What the client has signed in with is gone, and so is its connection.
		r.server.Review(revoking(func(q *Request) bool { return q.Command == 0 }))
		if err := client.Wait(); err == nil {
			t.Error("the connection is still there")
		}
	})
}

// TestOwnPort: port 0 is one of those that BIND may use, for visitors who come to
// it, on the terms of BIND.
func TestOwnPort(t *testing.T) {
	l := sshListener(t)
	l.BindPorts = PortRange{20000, 60000}
	r := onLoopback(t, &Server{Policy: deciding(offering), Authenticator: door{login: LoginOptional}}, l)
	client := signIn(t, proxytest.Dial(t, r.address))
	ln, err := client.ListenTCP(&net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if at.Port() < 20000 || at.Port() > 60000 {
		t.Errorf("port %d", at.Port())
	}
	visitor := proxytest.Dial(t, netip.AddrPortFrom(clientAt, at.Port()).String())
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	proxytest.Say(t, visitor, []byte("hello"))
	proxytest.Hear(t, far, "hello")
	proxytest.Say(t, far, []byte("hello yourself"))
	proxytest.Hear(t, visitor, "hello yourself")
	visitor.Close()
	far.Close()
	if e := r.next(Closed); e.Command != socks.Bind || e.Up() != 14 || e.Down() != 5 || e.Address != addrPort(visitor.LocalAddr()) {
		t.Errorf("the record says %+v", e.Record)
	}
	ln.Close()
	if e := r.next(Closed); e.Bound.Port() != at.Port() {
		t.Errorf("the record says %+v", e.Record)
	}
	for _, port := range []int{19999, 60001} {
		if _, err := client.ListenTCP(&net.TCPAddr{IP: net.IPv4zero, Port: port}); err == nil {
			t.Errorf("port %d can be had", port)
		}
	}
}

// TestOwnPortAddresses: a port is opened on the addresses that were asked for (RFC 4254,
// section 7.1), and where nothing was written in the client, for this machine alone.
func TestOwnPortAddresses(t *testing.T) {
	hosts := map[string]string{"": "0.0.0.0", "*": "0.0.0.0", "0.0.0.0": "0.0.0.0", "localhost": "127.0.0.1", "LOCALHOST": "127.0.0.1", "127.0.0.1": "127.0.0.1"}
	if c, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "[::1]:0"); err == nil {
		c.Close()
		hosts["::"], hosts["::1"] = "::", "::1"
	}
	away := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		g, err := offering(ctx, r)
		g.Way = &Way{Outbound: From(netip.MustParseAddr("127.0.0.3"))} // which is not for this machine's own
		return g, err
	})
	for host, want := range hosts {
		t.Run(host, func(t *testing.T) { isOpenedAt(t, deciding(offering), host, want) })
	}
	t.Run("localhost, with a way out", func(t *testing.T) { isOpenedAt(t, away, "localhost", "127.0.0.1") })
}

// isOpenedAt fails the test unless a port that is asked for is at an address, and
// reached by others of this machine only where that is all of them.
func isOpenedAt(t *testing.T, policy Policy, host, want string) {
	t.Helper()
	r := onLoopback(t, &Server{Policy: policy, Authenticator: door{login: LoginOptional}}, sshListener(t))
	client := signIn(t, proxytest.Dial(t, r.address))
	ok, _, err := client.SendRequest("tcpip-forward", true, ssh.Marshal(sshOffer{host, 0}))
	if !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	bound := r.server.Sessions()[0].Now().Bound
	if bound.Addr().String() != want {
		t.Errorf("the port is at %s, want at %s", bound, want)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), bound.Port()).String())
	if reached := !errors.Is(err, syscall.ECONNREFUSED); reached != (want == "0.0.0.0") {
		t.Errorf("another address of this machine: %v", err)
	}
	if err == nil {
		c.Close()
	}
}

// TestOwnPortIsRefused without a rule that says any_peer.
func TestOwnPortIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything)}, sshListener(t))
		client := signIn(t, r.client())
		if _, err := client.ListenTCP(&net.TCPAddr{IP: net.IPv4zero}); err == nil {
			t.Error("a port was granted")
		}
		r.next(Denied)
	})
}

// TestOfferOfNonsense: what a client can ask for and not have.
func TestOfferOfNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		client := signIn(t, r.client())
		for payload, want := range map[string]Reason{
			"": BadRequest, "\x00\x00\x00\x08intranet": BadRequest, "\xff\xff\xff\xffintranet\x00\x00\x00\x50": BadRequest,
			"\x00\x00\x00\x08intranet\x00\x01\x00\x00":  BadRequest,
			"\x00\x00\x00\x08intranet\x00\x00\x00\x00":  BadRequest,
			"\x00\x00\x00\x08intranet\x00\x00\x00\x50x": BadRequest,
			"\x00\x00\x00\x03a b\x00\x00\x00\x50":       BadRequest,
			"\x00\x00\x00\x0710.0.0.1\x00\x00\x00\x50":  BadRequest,
			"\x00\x00\x00\x0810.0.0.1\x00\x00\x00\x50":  Unsupported,
		} {
			if ok, _, err := client.SendRequest("tcpip-forward", true, []byte(payload)); ok || err != nil {
				t.Errorf("%q: %v, %v", payload, ok, err)
			}
			r.next(want)
		}
		if ok, _, err := client.SendRequest("nonsense@example.com", true, nil); ok || err != nil {
			t.Errorf("a request that nobody knows: %v, %v", ok, err)
		}
	})
}

// TestOfferOfAnotherName: the log says that no virtual port is called so, and not only
// that the name has no address.
func TestOfferOfAnotherName(t *testing.T) {
	nowhere := deciding(func(context.Context, *Request) (Grant, error) {
		return Grant{}, &net.DNSError{Err: "no such host", Name: "secret", IsNotFound: true}
	})
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: nowhere, Authenticator: door{login: LoginOptional}}, sshListener(t))
		client := signIn(t, r.client())
		if ok, _, err := client.SendRequest("tcpip-forward", true, ssh.Marshal(sshOffer{"secret", 80})); ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		if e := r.next(NoName); !strings.Contains(e.err.Error(), `no virtual port is called "secret"`) {
			t.Errorf("recorded: %v", e.err)
		}
	})
}

// TestSessionChannel: who asks for a shell reads a sentence, and is told that it
// has failed.
func TestSessionChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		client := signIn(t, r.client())
		for _, kind := range []string{"shell", "exec", "subsystem"} {
			asksForShell(t, client, kind)
		}
		for _, kind := range []string{"x11", "auth-agent@openssh.com", "direct-streamlocal@openssh.com"} {
			if _, _, err := client.OpenChannel(kind, nil); err == nil {
				t.Errorf("a channel of the type %s was opened", kind)
			}
		}
	})
}

func asksForShell(t *testing.T, client *ssh.Client, kind string) {
	t.Helper()
	channel, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	status := make(chan string, 1)
	go func() {
		for r := range requests {
			status <- r.Type + string(r.Payload)
		}
	}()
	for _, request := range []string{"pty-req", kind} {
		if ok, err := channel.SendRequest(request, true, nil); !ok || err != nil {
			t.Errorf("%s: %v, %v", request, ok, err)
		}
	}
	hearsAll(t, channel.Stderr(), sshNoShell, nil)
	if got := <-status; got != "exit-status\x00\x00\x00\x01" {
		t.Errorf("%s: %q", kind, got)
	}
}

// TestSessionChannelHoldsNothing: what a client writes to a session is not kept, or it
// could fill the memory where no rule lets it do anything.
func TestSessionChannelHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		client := signIn(t, r.client())
		channel, _, err := client.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 2)
		for _, to := range []io.Writer{channel, channel.Stderr()} {
			go func() {
				_, err := to.Write(make([]byte, 8<<20)) // four windows
				written <- err
			}()
		}
		synctest.Wait()
		if len(written) < 2 {
			t.Fatal("it waits for somebody to read")
		}
		if err := errors.Join(<-written, <-written); err != nil {
			t.Error(err)
		}
	})
}

// TestSilentClientIsGreeted: a client that waits for the server to speak first
// hears it after a while, once, and has to speak SSH then.
func TestSilentClientIsGreeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		began := time.Now()
		c := r.client()
		proxytest.Hear(t, c, sshVersion+"\r\n")
		if time.Since(began) != sshSilence {
			t.Errorf("after %v", time.Since(began))
		}
		heard := &rewound{Conn: c, head: []byte(sshVersion + "\r\n")}
		if ok, _, err := signIn(t, heard).SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		c = r.client()
		proxytest.Hear(t, c, sshVersion+"\r\n")
		proxytest.Say(t, c, proxytest.Connect4(targetAt, "bob"))
		if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		r.next(Garbage)
	})
}

// TestShutdownWithSSH: a connection that only offers does not hold up the server's
// end, one that relays does.
func TestShutdownWithSSH(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		target := r.network.MustListen(targetAt.String())
		offers, relays := signIn(t, r.client()), signIn(t, r.client())
		offerIntranet(t, offers)
		c, err := relays.Dial("tcp", targetAt.String())
		if err != nil {
			t.Fatal(err)
		}
		far := r.next4(target)
		done := make(chan error, 1)
		go func() { done <- r.server.Shutdown(t.Context()) }()
		synctest.Wait()
		if err := offers.Wait(); err == nil {
			t.Error("the offer's connection is still there")
		}
		r.next(Shutdown)
		proxytest.Say(t, far, []byte("still here"))
		proxytest.Hear(t, c, "still here")
		c.Close()
		far.Close()
		r.next(Closed)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestVisitorsStay: neither the end of the server, nor that of the offer ends the
// session of a visitor, and while there is one the connection is not idle.
func TestVisitorsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		r.server.SetTimeouts(Timeouts{Idle: time.Minute})
		client := signIn(t, r.client())
		offer := offerIntranet(t, client)
		visitor := r.mustVisit()
		far := offer.next(t)
		talk := func() {
			t.Helper()
			proxytest.Say(t, visitor, []byte("question"))
			proxytest.Hear(t, far, "question")
		}
		requests(t, client, "cancel-tcpip-forward", true)
		r.next(Closed)
		for range 4 {
			time.Sleep(30 * time.Second)
			talk()
		}
		requests(t, client, "tcpip-forward", true)
		done := make(chan error, 1)
		go func() { done <- r.server.Shutdown(t.Context()) }()
		if e := r.next(Shutdown); e.Command != socks.Bind {
			t.Errorf("the record says %+v", e.Record)
		}
		talk()
		visitor.Close()
		far.Close()
		r.next(Closed)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := client.Wait(); err == nil {
			t.Error("the connection is still there")
		}
	})
}

// TestDrainWithSSH: who offers a port has to come to the process that visitors come
// to; who does not may stay, but can offer nothing.
func TestDrainWithSSH(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		target := r.network.MustListen(targetAt.String())
		offers, relays := signIn(t, r.client()), signIn(t, r.client())
		offer := offerIntranet(t, offers)
		visitor := r.mustVisit()
		offer.next(t)
		c, err := relays.Dial("tcp", targetAt.String())
		if err != nil {
			t.Fatal(err)
		}
		far := r.next4(target)
		done := make(chan error, 1)
		go func() { done <- r.server.Drain(t.Context()) }()
		_ = offers.Wait() // says only that it was cut
		hearsAll(t, visitor, "", syscall.ECONNRESET)
		for range 2 {
			if e := <-r.ends; e.Command == socks.Bind && ReasonOf(e.err) != Shutdown {
				t.Errorf("the record of the offer says %v", e.err)
			}
		}
		proxytest.Say(t, far, []byte("still here"))
		proxytest.Hear(t, c, "still here")
		synctest.Wait()                                                                                       // that connection knows of it, too
		if ok, _, _ := relays.SendRequest("tcpip-forward", true, ssh.Marshal(sshOffer{"intranet", 80})); ok { // it may be cut before the answer
			t.Error("an offer where no visitors come")
		}
		_ = relays.Wait()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestSSHLoginsAreFew: each costs far more than another handshake, and may take longer.
func TestSSHLoginsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Policy: deciding(offering), Authenticator: door{login: LoginOptional}, Limits: Limits{Logins: 4, LoginsPerSource: 2}}
		r := inMemory(t, s, sshListener(t))
		begins := func(n int) {
			c := r.client(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}))
			proxytest.Say(t, c, []byte("SSH-2.0-x\r\n"))
			synctest.Wait()
		}
		for _, source := range []int{1, 1, 1, 2, 2, 3} {
			begins(source)
		}
		for range 2 { // the oldest of the first source, and the oldest of all
			if e := r.next(Busy); e.Client.Addr() != netip.MustParseAddr("192.0.2.1") {
				t.Errorf("%v had to leave", e.Client)
			}
		}
		signIn(t, r.client())
		r.next(Busy)
	})
}

// TestSSHLogin: passwords as everywhere, six at the most.
func TestSSHLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIntranet(t)
		tries := 0
		config := proxytest.SSHConfig("fred", "")
		config.Auth = []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
			tries++
			return "wrong", nil
		}), 100)}
		if _, _, _, err := ssh.NewClientConn(r.client(), "", config); err == nil {
			t.Error("signed in with a wrong password")
		}
		if tries > sshTries {
			t.Errorf("%d tries", tries)
		}
		if e := r.next(BadLogin); e.Protocol != SSH {
			t.Errorf("the record says %+v", e.Record)
		}
		if _, _, _, err := ssh.NewClientConn(r.client(), "", proxytest.SSHConfig("fred", "")); err == nil {
			t.Error("signed in with nothing")
		}
		r.next(BadLogin)
		// One that says nothing behind its greeting is a slow handshake.
		c := r.client()
		proxytest.Say(t, c, []byte("SSH-2.0-x\r\n"))
		_, _ = io.ReadAll(c)
		r.next(HandshakeSlow)
	})
}
