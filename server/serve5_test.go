package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// greeted is a client in memory that needs no login and has sent a request.
func (r *rig) greeted(request []byte) *proxytest.Conn {
	r.Helper()
	c := r.asks(append(proxytest.Greeting5(socks.NoAuth), request...))
	proxytest.Hear(r, c, choseNone)
	return c
}

// TestRefusedHandshakes5: the last words, then FIN, whatever the client has
// still to say; and nothing is dialled.
func TestRefusedHandshakes5(t *testing.T) {
	for _, c := range allCases5() {
		if c.want.refusal == "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything), Authenticator: door{login: c.login}}, Listener{})
				conn := r.asks([]byte(c.bytes + "and what follows"))
				proxytest.Hear(t, conn, c.said)
				proxytest.Ends(t, conn)
				conn.Close()
				e := r.next(c.want.refusal)
				if d := r.network.Dialled(); len(d) > 0 || e.Command == 0 && e.Identity != (Identity{}) {
					t.Errorf("dialled %v, identity %v", d, e.Identity)
				}
				if strings.Contains(e.err.Error(), "secret") || strings.Contains(e.err.Error(), "hunter") {
					t.Errorf("the reason tells the password: %v", e.err)
				}
			})
		})
	}
}

// TestRoundsOfSOCKS5: a client that waits for each answer gets it at once.
func TestRoundsOfSOCKS5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen *Request
		policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
			seen = r
			return anything(ctx, r)
		})
		r := inMemory(t, &Server{Policy: policy, Authenticator: door{login: LoginRequired}}, Listener{Name: "lan"})
		target, start := r.network.MustListen(targetAt.String()), time.Now()
		c := r.client()
		for _, round := range []struct{ say, hear string }{
			{"\x05\x02\x00\x02", choseLogin},
			{fredsLogin, loginGranted},
		} {
			proxytest.Say(t, c, []byte(round.say))
			proxytest.Hear(t, c, round.hear)
		}
		proxytest.Say(t, c, proxytest.Ask5(socks.Connect, targetAt))
		far := r.next4(target)
		if bound := proxytest.Granted5(t, c); bound != addrPort(far.RemoteAddr()) || time.Since(start) > 0 {
			t.Errorf("the reply says %v after %v; want %v at once", bound, time.Since(start), far.RemoteAddr())
		}
		if seen.Identity != fred || seen.Protocol != SOCKS5 || seen.Listener != "lan" || seen.Client.Addr() != clientAt || seen.Local != proxyAt {
			t.Errorf("the policy was asked about %+v", seen)
		}
		proxytest.Say(t, c, []byte("up"))
		proxytest.Hear(t, far, "up")
		far.Close()
		c.Close()
		if e := r.next(Closed); e.Identity != fred || e.Protocol != SOCKS5 || e.Up() != 2 {
			t.Errorf("recorded %+v", e.Session)
		}
	})
}

// TestHandshakeLimit5 is absolute, for a client that trickles and while the
// Authenticator thinks.
func TestHandshakeLimit5(t *testing.T) {
	hangs := func(ctx context.Context, _ Credentials) (Identity, error) {
		<-ctx.Done()
		return Identity{}, ctx.Err()
	}
	obstinate := func(ctx context.Context, _ Credentials) (Identity, error) {
		<-ctx.Done()
		return fred, nil
	}
	for _, test := range []struct {
		name  string
		check func(context.Context, Credentials) (Identity, error)
		bytes string
		every time.Duration
		said  string
	}{
		{"a greeting that trickles", nil, "\x05\xff" + strings.Repeat("\x01", 255), time.Second, ""},
		{"a login that trickles", nil, "\x05\x01\x02\x01\xff" + strings.Repeat("n", 400), 900 * time.Millisecond, choseLogin},
		{"a byte of the request every 9 s", nil, "\x05\x01\x00" + toTarget, 9 * time.Second, ""},
		{"silence after the choice", nil, "\x05\x01\x02", time.Nanosecond, choseLogin},
		{"silence after the login", nil, "\x05\x01\x02" + fredsLogin, time.Nanosecond, choseLogin + loginGranted},
		{"the Authenticator hangs", hangs, "\x05\x01\x02" + fredsLogin, time.Nanosecond, choseLogin},
		{"the Authenticator hangs, and then grants", obstinate, "\x05\x01\x02" + fredsLogin, time.Nanosecond, choseLogin},
		// The request is never read, so that the close is a reset and takes the choice with it.
		{"it grants too late, and the request is there", obstinate, "\x05\x01\x02" + fredsLogin + toTarget, time.Nanosecond, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything), Authenticator: door{LoginRequired, test.check}}, Listener{})
				start, c := time.Now(), r.client()
				stop := trickle(c, test.bytes, test.every)
				defer stop()
				r.next(HandshakeSlow)
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("ended after %v, want 10 s", took)
				}
				synctest.Wait() // for the close, which comes behind the record
				if said, _ := proxytest.End(c); string(said) != test.said {
					t.Errorf("% x was said, want % x", said, test.said)
				}
				if d := r.network.Dialled(); len(d) > 0 {
					t.Errorf("dialled %v", d)
				}
			})
		})
	}
}

// TestSlowLogin within the limit is a login, and the limit ends with the
// handshake.
func TestSlowLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, &Server{Policy: deciding(anything), Authenticator: door{LoginRequired, func(context.Context, Credentials) (Identity, error) {
			<-time.After(9 * time.Second)
			return fred, nil
		}}}, Listener{})
		target := r.network.MustListen(targetAt.String())
		c := r.asks([]byte("\x05\x01\x02" + fredsLogin + toTarget))
		far := r.next4(target)
		proxytest.Hear(t, c, choseLogin+loginGranted)
		proxytest.Granted5(t, c)
		time.AfterFunc(time.Hour, func() { _, _ = far.Write([]byte("late")) })
		proxytest.Hear(t, c, "late")
	})
}

// TestShutdownEndsALogin that waits for its Authenticator.
func TestShutdownEndsALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{})
		r := inMemory(t, &Server{Authenticator: door{LoginRequired, func(ctx context.Context, _ Credentials) (Identity, error) {
			close(asked)
			<-ctx.Done()
			return Identity{}, ctx.Err()
		}}}, Listener{})
		start, c := time.Now(), r.asks([]byte("\x05\x01\x02"+fredsLogin))
		<-asked
		if err := r.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		r.next(Shutdown)
		if said, _ := proxytest.End(c); string(said) != choseLogin || time.Since(start) > 0 {
			t.Errorf("% x was said, and it took %v", said, time.Since(start))
		}
	})
}

// TestEndsOfAHandshake5: the client leaves after each of its bytes.
func TestEndsOfAHandshake5(t *testing.T) {
	whole := "\x05\x01\x02" + fredsLogin + toTarget
	for name, leave := range map[string]struct {
		leave func(*proxytest.Conn)
		want  Reason
	}{
		"half-close": {func(c *proxytest.Conn) { _ = c.CloseWrite() }, ClientGone},
		"RST":        {func(c *proxytest.Conn) { proxytest.Reset(c) }, ClientReset},
	} {
		for n := range len(whole) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: deciding(anything), Authenticator: door{login: LoginRequired}}, Listener{})
				start, c := time.Now(), r.asks([]byte(whole[:n]))
				synctest.Wait()
				leave.leave(c)
				r.next(leave.want)
				if time.Since(start) > 0 || len(r.network.Dialled()) > 0 {
					t.Errorf("%s after %d bytes: ended after %v, dialled %v", name, n, time.Since(start), r.network.Dialled())
				}
			})
		}
	}
}

func TestUnknownCommands5(t *testing.T) {
	for _, command := range []socks.Command{0, 4, 0x7f, 0x80, 255} {
		synctest.Test(t, func(t *testing.T) {
			policy := deciding(func(context.Context, *Request) (Grant, error) {
				t.Errorf("command %d: the policy was asked", command)
				return Grant{}, Denied
			})
			r := inMemory(t, &Server{Policy: policy}, Listener{})
			c := r.greeted(proxytest.Ask5(command, targetAt))
			proxytest.Refused5(t, c, socks.CommandUnsupported5)
			c.Close()
			r.next(Unsupported)
		})
	}
}

// TestCode5 puts every refusal into the code that says most of it.
func TestCode5(t *testing.T) {
	op := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, test := range []struct {
		reason error
		want   socks.Code5
	}{
		{Denied, 2},
		{Schedule, 2},
		{Revoked, 2},
		{BadLogin, 2},
		{NoIdentd, 2},
		{OtherUser, 2},
		{Loop, 2},
		{NoPrimary, 2},
		{WrongPeer, 2},
		{fmt.Errorf("%w: by the rule %q", Denied, "x"), 2},
		{op(syscall.ENETUNREACH), 3},
		{op(syscall.EHOSTUNREACH), 4},
		{op(syscall.EHOSTDOWN), 4},
		{Unreachable, 4},
		{NoName, 4},
		{&net.DNSError{IsNotFound: true}, 4},
		{op(syscall.ECONNREFUSED), 5},
		{op(syscall.ECONNRESET), 5},
		{Refused, 5},
		{TimedOut, 6},
		{op(syscall.ETIMEDOUT), 6},
		{op(context.DeadlineExceeded), 6},
		{&net.DNSError{IsTimeout: true}, 6},
		{Unsupported, 7},
		{Busy, 1},
		{TooMany, 2},
		{TooFast, 2},
		{Quota, 2},
		{NoPort, 1},
		{BadRequest, 1},
		{Shutdown, 1},
		{Failed, 1},
		{errors.New("anything"), 1},
	} {
		wire := replier5{}.AppendDeny([]byte("before"), test.reason, netip.AddrPort{})
		if want := "before" + refused5(byte(test.want)); string(wire) != want {
			t.Errorf("%v: % x, want code %d", test.reason, wire[6:], test.want)
		}
	}
}

// TestRefusalsByThePolicy5 come with their code, and once.
func TestRefusalsByThePolicy5(t *testing.T) {
	for reason, code := range map[Reason]socks.Code5{
		Denied: socks.NotAllowed5, NoName: socks.HostUnreachable5, TimedOut: socks.TTLExpired5, NoIdentd: socks.NotAllowed5,
	} {
		for _, command := range []socks.Command{socks.Connect, socks.Bind} {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: refusing(reason)}, Listener{})
				c := r.greeted(append(proxytest.Ask5(command, targetAt), "and more"...))
				proxytest.Refused5(t, c, code)
				c.Close()
				r.next(reason)
				r.hasNoSocket()
			})
		}
	}
}

// TestTargetsThatAreNone5 never reach the network.
func TestTargetsThatAreNone5(t *testing.T) {
	for name, request := range map[string][]byte{
		"port 0":             proxytest.Ask5(socks.Connect, netip.AddrPortFrom(targetAt.Addr(), 0)),
		"port 0, by name":    proxytest.AskName5(socks.Connect, "127.0.0.2", 0),
		"0.0.0.0":            proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("0.0.0.0:80")),
		"::":                 proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("[::]:80")),
		"::ffff:0.0.0.0":     proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("[::ffff:0.0.0.0]:80")),
		"this network":       proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("0.0.0.1:80")),
		"multicast":          proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("224.0.0.1:80")),
		"IPv6 multicast":     proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("[ff02::1]:80")),
		"broadcast, mapped":  proxytest.Ask5(socks.Connect, netip.MustParseAddrPort("[::ffff:255.255.255.255]:80")),
		"BIND for multicast": proxytest.Ask5(socks.Bind, netip.MustParseAddrPort("[ff02::1]:80")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: freely}, Listener{})
				c := r.greeted(request)
				proxytest.Refused5(t, c, socks.GeneralFailure5)
				c.Close()
				r.next(BadRequest)
				if d := r.network.Dialled(); len(d) > 0 {
					t.Errorf("dialled %v", d)
				}
				r.hasNoSocket()
			})
		})
	}
}

// TestConnectReply5 carries the address of the outgoing connection, of either
// family, or nothing where it is hidden.
func TestConnectReply5(t *testing.T) {
	for _, host := range []string{"127.0.0.2", "::1"} {
		for _, hide := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hidden: %v", host, hide), func(t *testing.T) {
				r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{HideAddress: hide})
				target := proxytest.NewTarget(t, host)
				c := proxytest.Dial(t, r.address)
				proxytest.Say(t, c, append(proxytest.Greeting5(socks.NoAuth), proxytest.Ask5(socks.Connect, target.Addr())...))
				proxytest.Hear(t, c, choseNone)
				want := addrPort(target.Next(t).RemoteAddr())
				if hide {
					want = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
				}
				if bound := proxytest.Granted5(t, c); bound != want {
					t.Errorf("the reply says %v, want %v", bound, want)
				}
			})
		}
	}
}

// TestBind5 has two replies, with the addresses as they are, of either family.
func TestBind5(t *testing.T) {
	for _, peer := range []string{"127.0.0.2:20", "[::1]:20"} {
		t.Run(peer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: freely}, Listener{})
				from := netip.MustParseAddrPort(peer)
				c := r.greeted(append(proxytest.Ask5(socks.Bind, from), "early"...))
				at, open := proxytest.Granted5(t, c), r.network.Listening(proxyAt)
				if len(open) != 1 || at != open[0] || at.Addr().Is4() != from.Addr().Is4() {
					t.Fatalf("told %v, listening on %v", at, open)
				}
				synctest.Wait()
				if n := c.Unread(); n > 0 {
					t.Fatalf("%d bytes came before the peer did", n)
				}
				far := r.comes(peer, at)
				if about := proxytest.Granted5(t, c); about != from {
					t.Errorf("the second reply says %v, want %v", about, from)
				}
				proxytest.Hear(t, far, "early")
				proxytest.Say(t, far, []byte("down"))
				proxytest.Hear(t, c, "down")
				r.hasNoSocket()
			})
		})
	}
}

// TestBindRefusals5 are the second reply.
func TestBindRefusals5(t *testing.T) {
	for _, test := range []struct {
		name     string
		stranger string
		code     socks.Code5
		want     Reason
		about    string
		after    time.Duration
	}{
		{"a stranger", "127.0.0.3:20", socks.NotAllowed5, WrongPeer, "127.0.0.3:20", 0},
		{"nobody", "", socks.TTLExpired5, TimedOut, "0.0.0.0:0", 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, &Server{Policy: freely}, Listener{})
				c := r.greeted(proxytest.Ask5(socks.Bind, targetAt))
				start, at := time.Now(), proxytest.Granted5(t, c)
				if test.stranger != "" {
					r.comes(test.stranger, at)
				}
				if about := proxytest.Refused5(t, c, test.code); about.String() != test.about {
					t.Errorf("the second reply says %v, want %s", about, test.about)
				}
				if took := time.Since(start); took != test.after {
					t.Errorf("it came after %v", took)
				}
				c.Close()
				r.next(test.want)
				r.hasNoSocket()
			})
		})
	}
}

// TestPrimary5: the BIND of one user is not opened by the CONNECT of another,
// nor by that of somebody without a name.
func TestPrimary5(t *testing.T) {
	for _, test := range []struct {
		name, holder string
		want         socks.Code5
	}{
		{"one's own", "fred", socks.Succeeded5},
		{"another user's", "eve", socks.NotAllowed5},
		{"nobody's", "", socks.NotAllowed5},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				anyone := func(_ context.Context, c Credentials) (Identity, error) {
					return Identity{Name: c.Name, Proof: Password}, nil
				}
				r := inMemory(t, &Server{Policy: deciding(anything), Authenticator: door{LoginOptional, anyone}}, Listener{})
				target := r.network.MustListen(targetAt.String())
				hello := func(name string, request []byte) *proxytest.Conn {
					p := proxytest.SOCKS5(name, "secret")
					opening := p.Opening(targetAt)
					c := r.asks(append(opening[:len(opening)-len(toTarget)], request...))
					if name == "" {
						proxytest.Hear(t, c, choseNone)
					} else {
						proxytest.Hear(t, c, choseLogin+loginGranted)
					}
					return c
				}
				holder := hello(test.holder, proxytest.Ask5(socks.Connect, targetAt))
				r.next4(target)
				proxytest.Granted5(t, holder)
				c := hello("fred", proxytest.Ask5(socks.Bind, targetAt))
				if code, _ := proxytest.ReadReply5(t, c); code != test.want {
					t.Errorf("reply %d, want %d", code, test.want)
				}
			})
		})
	}
}
