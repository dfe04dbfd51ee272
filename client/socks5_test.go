package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// turn is what a scripted SOCKS 5 server expects in one write, and what it says to it.
type turn struct{ want, say []byte }

// turns plays them, and then waits until the client closes.
func turns(all ...turn) script {
	return func(t *testing.T, c net.Conn) {
		if takeTurns(t, c, all) {
			waitForClose(t, c)
		}
	}
}

func takeTurns(t *testing.T, c net.Conn, all []turn) bool {
	t.Helper()
	buf := make([]byte, 2048)
	for i, turn := range all {
		n, err := c.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], turn.want) {
			t.Errorf("turn %d: got %x, %v; want %x", i, buf[:n], err, turn.want)
			return false
		}
		if len(turn.say) == 0 {
			continue
		}
		if _, err := c.Write(turn.say); err != nil {
			t.Errorf("turn %d: writing %x: %v", i, turn.say, err)
			return false
		}
	}
	return true
}

// hello5 is the greeting without a login, and the choice of it.
var hello5 = turn{[]byte{5, 1, 0}, []byte{5, 0}}

// reply5 is a reply's bytes; host is "host:port".
func reply5(t *testing.T, code socks.Code5, host string) []byte {
	t.Helper()
	return socks.Reply5{Code: code, Host: host5(t, host)}.Append(nil)
}

func host5(t *testing.T, hostport string) socks.Host5 {
	t.Helper()
	a, err := socks.ParseAddr(hostport)
	if err != nil {
		t.Fatal(err)
	}
	return socks.Host5(a)
}

// request5 is a request's bytes.
func request5(t *testing.T, cmd socks.Command, host string) []byte {
	t.Helper()
	return socks.Request5{Command: cmd, Host: host5(t, host)}.Append(nil)
}

func TestRequests5(t *testing.T) {
	resolver := client.WithResolver(names{
		"www.example.com": ips("2001:db8::7", "::ffff:192.0.2.7"),
	})
	for _, c := range []struct{ scheme, network, address, asked string }{
		{"socks5", "tcp", "192.0.2.7:443", "192.0.2.7:443"},
		{"socks5", "tcp", "[2001:db8::1]:80", "[2001:db8::1]:80"},
		{"socks5", "tcp6", "[2001:db8::1]:80", "[2001:db8::1]:80"},
		{"socks5", "tcp", "0.0.0.5:80", "0.0.0.5:80"},
		{"socks5", "tcp", "www.example.com:80", "[2001:db8::7]:80"},
		{"socks5", "tcp6", "www.example.com:80", "[2001:db8::7]:80"},
		{"socks5", "tcp4", "www.example.com:80", "192.0.2.7:80"},
		{"socks5h", "tcp", "WWW.example.com.:http", "www.example.com:80"},
		{"socks5h", "tcp", "[::ffff:192.0.2.7]:443", "192.0.2.7:443"},
	} {
		t.Run(c.scheme+" "+c.network+" "+c.address, func(t *testing.T) {
			p := play(t, turns(hello5, turn{request5(t, socks.Connect, c.asked), reply5(t, 0, "192.0.2.200:2000")}))
			conn, err := dialerFor(t, c.scheme+"://gw", p, resolver).DialContext(t.Context(), c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr(); got.String() != c.asked || got.Network() != "tcp" {
				t.Errorf("RemoteAddr %v, want %s", got, c.asked)
			}
		})
	}
}

func TestTargetsThatCannotBeAsked5(t *testing.T) {
	resolver := client.WithResolver(names{"v6.example": ips("2001:db8::1"), "blocked.example": ips("0.0.0.0", "::")})
	for _, c := range []struct{ scheme, network, address, says string }{
		{"socks5", "tcp4", "v6.example:80", "no usable address"},
		{"socks5", "tcp", "blocked.example:80", "no usable address"},
		{"socks5", "tcp4", "[2001:db8::1]:80", "tcp4"},
		{"socks5", "tcp6", "192.0.2.7:80", "tcp6"},
		{"socks5h", "tcp6", "v6.example:80", "tcp6"},
		{"http", "tcp6", "v6.example:80", "tcp6"},
		{"socks4", "tcp6", "v6.example:80", "socks4a://"},
	} {
		_, err := dialerFor(t, c.scheme+"://gw", play(t), resolver).DialContext(t.Context(), c.network, c.address)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// login5 is a login of alice with the password secret, and the answer.
func login5(answer ...byte) []turn {
	return []turn{
		{[]byte{5, 2, 0, 2}, []byte{5, 2}},
		{[]byte("\x01\x05alice\x06secret"), answer},
	}
}

func TestLogin5(t *testing.T) {
	request := turn{request5(t, socks.Connect, "192.0.2.7:80"), reply5(t, 0, "192.0.2.200:2000")}
	for name, c := range map[string]struct {
		user   string
		script []turn
		login  bool // ErrLogin
		says   string
	}{
		"granted":                     {"alice:secret@", append(login5(1, 0), request), false, ""},
		"granted by version 5":        {"alice:secret@", append(login5(5, 0), request), false, ""},
		"an empty user":               {"@", []turn{hello5, request}, false, ""},
		"not asked for":               {"alice:secret@", []turn{{[]byte{5, 2, 0, 2}, []byte{5, 0}}, request}, false, ""},
		"without a password":          {"alice@", []turn{{[]byte{5, 2, 0, 2}, []byte{5, 2}}, {[]byte("\x01\x05alice\x00"), []byte{1, 0}}, request}, false, ""},
		"refused":                     {"alice:secret@", login5(1, 1), true, "wrong user or password"},
		"refused by another status":   {"alice:secret@", login5(1, 0xff), true, "wrong user or password"},
		"no method":                   {"alice:secret@", []turn{{[]byte{5, 2, 0, 2}, []byte{5, 0xff}}}, true, "neither"},
		"no method without a login":   {"", []turn{{[]byte{5, 1, 0}, []byte{5, 0xff}}}, true, "no user"},
		"a password nobody offered":   {"", []turn{{[]byte{5, 1, 0}, []byte{5, 2}}}, false, "0x02, which was not offered"},
		"GSSAPI, which nobody offers": {"alice:secret@", []turn{{[]byte{5, 2, 0, 2}, []byte{5, 1}}}, false, "not offered"},
		"the login's version":         {"alice:secret@", login5(7, 0), false, "begins with 0x07"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dialerFor(t, "socks5://"+c.user+"gw", play(t, turns(c.script...)))
			conn, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			if errors.Is(err, client.ErrLogin) != c.login || errors.Is(err, client.ErrRejected) != c.login {
				t.Errorf("%v: ErrLogin %v", err, !c.login)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v does not say %q, or too much", err, c.says)
			}
		})
	}
}

// A login that is refused is refused for every address of the target.
func TestLoginRefusedOnce5(t *testing.T) {
	resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "192.0.2.2")})
	d := dialerFor(t, "socks5://alice:secret@gw", play(t, turns(login5(1, 1)...)), resolver)
	if _, err := d.Dial("tcp", "www.example.com:80"); !errors.Is(err, client.ErrLogin) {
		t.Errorf("got %v", err)
	}
}

func TestNextAddress5(t *testing.T) {
	resolver := client.WithResolver(names{"www.example.com": ips("2001:db8::7", "192.0.2.7")})
	p := play(t,
		turns(hello5, turn{request5(t, socks.Connect, "[2001:db8::7]:80"), reply5(t, socks.TypeUnsupported5, "0.0.0.0:0")}),
		turns(hello5, turn{request5(t, socks.Connect, "192.0.2.7:80"), reply5(t, 0, "0.0.0.0:0")}))
	conn, err := dialerFor(t, "socks5://gw", p, resolver).Dial("tcp", "www.example.com:80")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestRefusals5(t *testing.T) {
	all := []error{
		client.ErrLogin, client.ErrNoIdentd, client.ErrOtherUser, client.ErrNotAllowed, client.ErrUnreachable,
		client.ErrRefused, client.ErrTimeout, client.ErrUnsupported,
	}
	for code, want := range map[socks.Code5]error{
		socks.GeneralFailure5:     client.ErrRejected,
		socks.NotAllowed5:         client.ErrNotAllowed,
		socks.NetworkUnreachable5: client.ErrUnreachable,
		socks.HostUnreachable5:    client.ErrUnreachable,
		socks.Refused5:            client.ErrRefused,
		socks.TTLExpired5:         client.ErrTimeout,
		socks.CommandUnsupported5: client.ErrUnsupported,
		socks.TypeUnsupported5:    client.ErrUnsupported,
		9:                         client.ErrRejected,
		255:                       client.ErrRejected,
	} {
		p := play(t, turns(hello5, turn{request5(t, socks.Connect, "www.example.com:80"), reply5(t, code, "192.0.2.9:99")}))
		_, err := dialerFor(t, "socks5h://gw", p).Dial("tcp", "www.example.com:80")
		got, ok := errors.AsType[*client.ReplyError](err)
		expect := client.ReplyError{
			Proxy: "socks5h://gw:1080", Op: "connect", Target: "www.example.com:80",
			Code: code, Addr: netip.MustParseAddrPort("192.0.2.9:99"),
		}
		if !ok || *got != expect {
			t.Errorf("code %d: got %v, want %+v", code, err, expect)
			continue
		}
		if !errors.Is(err, want) || !errors.Is(err, client.ErrRejected) {
			t.Errorf("code %d: %v does not match %v and ErrRejected", code, err, want)
		}
		for _, other := range all {
			if got := errors.Is(err, other); got != errors.Is(want, other) {
				t.Errorf("code %d: errors.Is(%v) = %v", code, other, got)
			}
		}
		if text := fmt.Sprintf("socks5h://gw:1080: connect www.example.com:80: reply %d, %v", byte(code), code); err.Error() != text {
			t.Errorf("%q, want %q", err, text)
		}
	}
}

// Replies of servers that are careless where there is no address to tell.
func TestRefusalWithoutAddress5(t *testing.T) {
	for _, b := range [][]byte{{5, 2, 0, 0, 0}, {5, 2, 0xff, 1, 0}} {
		p := play(t, turns(hello5, turn{request5(t, socks.Connect, "192.0.2.7:80"), b}))
		_, err := dialerFor(t, "socks5://gw", p).Dial("tcp", "192.0.2.7:80")
		if !errors.Is(err, client.ErrNotAllowed) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestBadReplies5(t *testing.T) {
	for _, c := range []struct {
		reply []byte
		is    error
	}{
		{[]byte{0, 90, 0, 0, 0}, socks.ErrVersion},
		{[]byte{5, 0, 1, 1, 0}, socks.ErrReserved},
		{[]byte{5, 0, 0, 2, 0}, socks.ErrAddressType},
	} {
		p := play(t, turns(hello5, turn{request5(t, socks.Connect, "192.0.2.7:80"), c.reply}))
		_, err := dialerFor(t, "socks5://gw", p).Dial("tcp", "192.0.2.7:80")
		if !errors.Is(err, c.is) || errors.Is(err, client.ErrRejected) {
			t.Errorf("%x: %v, want %v", c.reply, err, c.is)
		}
	}
}

func TestOtherProtocolsAreRecognised5(t *testing.T) {
	for first, hint := range map[byte]string{0: "SOCKS 4", 'H': "HTTP", 0x15: "TLS"} {
		d := dialerFor(t, "socks5://gw", play(t, turns(turn{[]byte{5, 1, 0}, []byte{first}})))
		_, err := d.DialContext(t.Context(), "tcp", "192.0.2.7:80")
		if !errors.Is(err, socks.ErrVersion) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%#02x: %v, want a hint at %s", first, err, hint)
		}
	}
}

// messages5 are all that a server says, for every kind of address in the reply.
func messages5(t *testing.T) [][][]byte {
	var all [][][]byte
	for _, host := range []string{"192.0.2.200:2000", "[2001:db8::1]:2000", "gw.example:2000"} {
		all = append(all, [][]byte{{5, 2}, {1, 0}, reply5(t, 0, host)})
	}
	all = append(all, [][]byte{{5, 2}, {1, 0}, {5, 0, 0, 3, 0, 1, 2}}) // an empty name
	return all
}

// sayInRounds writes what a server says to alice, part by part, each after the
// client's message that it answers, as far as the text goes.
func sayInRounds(t *testing.T, c net.Conn, parts [][]byte, write func([]byte)) {
	t.Helper()
	for i, part := range parts {
		if _, err := io.ReadFull(c, make([]byte, []int{4, 14, 10}[i])); err != nil {
			t.Errorf("round %d: %v", i, err)
			return
		}
		write(part)
	}
}

// A connection that ends after any byte is an error that says so.
func TestCutAnywhere5(t *testing.T) {
	for _, said := range messages5(t) {
		var before [][]byte
		for _, message := range said {
			for n := range message {
				checkCut5(t, append(before[:len(before):len(before)], message[:n]))
			}
			before = append(before, message)
		}
	}
}

func checkCut5(t *testing.T, parts [][]byte) {
	t.Helper()
	p := play(t, func(t *testing.T, c net.Conn) {
		sayInRounds(t, c, parts, func(b []byte) {
			if _, err := c.Write(b); err != nil {
				t.Error(err)
			}
		})
	})
	_, err := dialerFor(t, "socks5://alice:secret@gw", p).Dial("tcp", "192.0.2.7:80")
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut after %x: %v", parts, err)
	}
}

// Every message in single bytes, and the target's first bytes behind the last.
func TestInPieces5(t *testing.T) {
	for _, said := range messages5(t) {
		p := play(t, func(t *testing.T, c net.Conn) {
			sayInRounds(t, c, said, func(b []byte) {
				if _, err := io.Copy(c, iotest.OneByteReader(bytes.NewReader(b))); err != nil {
					t.Error(err)
				}
			})
			if _, err := io.WriteString(c, "220 ready"); err != nil {
				t.Error(err)
			}
			waitForClose(t, c)
		})
		checkHears(t, dialerFor(t, "socks5://alice:secret@gw", p), "220 ready")
	}
}

// And in the same segment as the last.
func TestTailInOneSegment5(t *testing.T) {
	answer := append(reply5(t, 0, "gw.example:2000"), "220 ready"...)
	p := play(t, turns(hello5, turn{request5(t, socks.Connect, "192.0.2.7:80"), answer}))
	checkHears(t, dialerFor(t, "socks5://gw", p), "220 ready")
}

func TestBind5(t *testing.T) {
	p := play(t, func(t *testing.T, c net.Conn) {
		takeTurns(t, c, []turn{hello5, {request5(t, socks.Bind, "192.0.2.7:21"), reply5(t, 0, "192.0.2.200:2000")}})
		if _, err := c.Write(append(reply5(t, 0, "[2001:db8::7]:20"), "data"...)); err != nil {
			t.Error(err)
		}
		waitForClose(t, c)
	})
	ln := listen(t, dialerFor(t, "socks5://gw", p))
	if ln.Addr().String() != "192.0.2.200:2000" {
		t.Errorf("Addr %v", ln.Addr())
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || a.String() != "[2001:db8::7]:20" {
		t.Errorf("RemoteAddr %v", conn.RemoteAddr())
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "data" {
		t.Errorf("the peer's first bytes are %q, %v", got, err)
	}
	checkClosed(t, ln)
}

func TestBindAddr5(t *testing.T) {
	for _, c := range []struct{ bound, want string }{
		{"0.0.0.0:2000", "192.0.2.1:2000"},
		{"[::]:2000", "192.0.2.1:2000"},
		{"gw.example:2000", "gw.example:2000"},
	} {
		p := play(t, turns(hello5, turn{request5(t, socks.Bind, "192.0.2.7:21"), reply5(t, 0, c.bound)}))
		p.wrap = func(conn net.Conn) net.Conn { return addressedConn{conn, "192.0.2.1:1080"} }
		if ln := listen(t, dialerFor(t, "socks5://gw", p)); ln.Addr().String() != c.want || ln.Addr().Network() != "tcp" {
			t.Errorf("%s: Addr %v, want %s", c.bound, ln.Addr(), c.want)
		}
	}
}

func TestBindPeerTurnedAway5(t *testing.T) {
	p := play(t, func(t *testing.T, c net.Conn) {
		takeTurns(t, c, []turn{hello5, {request5(t, socks.Bind, "192.0.2.7:21"), reply5(t, 0, "192.0.2.200:2000")}})
		if _, err := c.Write(reply5(t, socks.NotAllowed5, "198.51.100.66:6666")); err != nil {
			t.Error(err)
		}
		waitForClose(t, c)
	})
	_, err := listen(t, dialerFor(t, "socks5://gw", p)).Accept()
	got, ok := errors.AsType[*client.ReplyError](err)
	if !ok || got.Op != "accept" || got.Addr.String() != "198.51.100.66:6666" || !errors.Is(err, client.ErrNotAllowed) {
		t.Errorf("got %v", err)
	}
}

// A deadline ends Accept but not the BIND, and no byte read so far is lost.
func TestAcceptDeadline5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := reply5(t, 0, "192.0.2.7:20")
		p := play(t, func(t *testing.T, c net.Conn) {
			takeTurns(t, c, []turn{hello5, {request5(t, socks.Bind, "192.0.2.7:21"), reply5(t, 0, "192.0.2.200:2000")}})
			for _, part := range [][]byte{second[:6], second[6:]} {
				if _, err := c.Write(part); err != nil {
					t.Error(err)
				}
				<-time.After(time.Minute)
			}
		})
		ln := listen(t, dialerFor(t, "socks5://gw", p))
		if _, err := acceptWithin(t, ln, 30*time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		conn, err := acceptWithin(t, ln, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}
