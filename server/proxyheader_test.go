//go:build unix

package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

const (
	sig      = "\r\n\r\n\x00\r\nQUIT\n"
	ends4    = "\xc0\x00\x02\x01\xc6\x33\x64\x07\x9c\xba\x04\x38" // 192.0.2.1:40122 to 198.51.100.7:1080
	header1  = "PROXY TCP4 192.0.2.1 198.51.100.7 40122 1080\r\n"
	header2  = sig + "\x21\x11\x00\x0c" + ends4
	longest1 = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
)

var ends6 = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x02" + "\x00\x50\xff\xff"

// proxyHeaders are headers, the client they name and ours, and what is wrong
// with them.
var proxyHeaders = []struct {
	name, wire    string
	client, local string
	want          error
}{
	{"1", header1, "192.0.2.1:40122", "198.51.100.7:1080", nil},
	{"1, IPv6", "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 0 65535\r\n", "[2001:db8::1]:0", "192.0.2.2:65535", nil},
	{"1, nobody", "PROXY UNKNOWN\r\n", "", "", nil},
	{"1, nobody, and more", "PROXY UNKNOWN 192.0.2.1 b c d\r\n", "", "", nil},
	{"1, the longest", longest1, "", "", nil},
	{"2", header2, "192.0.2.1:40122", "198.51.100.7:1080", nil},
	{"2, IPv6", sig + "\x21\x21\x00\x24" + ends6, "[2001:db8::1]:80", "192.0.2.2:65535", nil},
	{"2, TLVs", sig + "\x21\x11\x00\x11" + ends4 + "\x04\x00\x02xy", "192.0.2.1:40122", "198.51.100.7:1080", nil},
	{"2, the longest", sig + "\x21\x11\x02\x08" + ends4 + strings.Repeat("t", 508), "192.0.2.1:40122", "198.51.100.7:1080", nil},
	{"2, local", sig + "\x20\x00\x00\x00", "", "", nil},
	{"2, local, with addresses", sig + "\x20\x11\x00\x0c" + ends4, "", "", nil},
	{"2, local, of any family", sig + "\x20\xff\x00\x01x", "", "", nil},
	{"2, unspecified", sig + "\x21\x00\x00\x03abc", "", "", nil},
	{"2, a Unix socket", sig + "\x21\x31\x00\xd8" + strings.Repeat("u", 216), "", "", nil},

	{"no header", "\x04\x01", "", "", errHeaderMissing},
	{"a word that begins alike", "PROXI", "", "", errHeaderMissing},
	{"another case", "proxy TCP4 ", "", "", errHeaderMissing},
	{"a signature that begins alike", "\r\n\r\n\x01", "", "", errHeaderMissing},
	{"1, over the longest", longest1[:105] + "x\r\n", "", "", errHeaderSize},
	{"1, without an end", "PROXY UNKNOWN " + strings.Repeat("x", 92), "", "", errHeaderSize},
	{"1, LF", "PROXY UNKNOWN\n", "", "", errHeader},
	{"1, CR", "PROXY UNKNOWN\rx", "", "", errHeader},
	{"1, NUL", "PROXY UNKNOWN\x00", "", "", errHeader},
	{"1, no ASCII", "PROXY UNKNOWN é", "", "", errHeader},
	{"1, nothing", "PROXY \r\n", "", "", errHeader},
	{"1, another protocol", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "", "", errHeader},
	{"1, a field less", "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "", "", errHeader},
	{"1, a field more", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "", "", errHeader},
	{"1, two blanks", "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "", "", errHeader},
	{"1, a blank at the end", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "", "", errHeader},
	{"1, families mixed", "PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n", "", "", errHeader},
	{"1, IPv4 as IPv6", "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "", "", errHeader},
	{"1, octal", "PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n", "", "", errHeader},
	{"1, zone", "PROXY TCP6 fe80::1%1 2001:db8::1 1 2\r\n", "", "", errHeader},
	{"1, a name", "PROXY TCP4 localhost 192.0.2.2 1 2\r\n", "", "", errHeader},
	{"1, port too high", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "", "", errHeader},
	{"1, port with a zero", "PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n", "", "", errHeader},
	{"1, port with a sign", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "", "", errHeader},
	{"2, version 1", sig + "\x11", "", "", errHeader},
	{"2, another command", sig + "\x22", "", "", errHeader},
	{"2, UDP", sig + "\x21\x12\x00\x0c", "", "", errHeader},
	{"2, another family", sig + "\x21\x41\x00\x0c", "", "", errHeader},
	{"2, too short for IPv4", sig + "\x21\x11\x00\x0b", "", "", errHeader},
	{"2, too short for IPv6", sig + "\x21\x21\x00\x23", "", "", errHeader},
	{"2, too short for a Unix socket", sig + "\x21\x31\x00\xd7", "", "", errHeader},
	{"2, too long", sig + "\x21\x11\x02\x09", "", "", errHeaderSize},
	{"2, too long, local", sig + "\x20\x00\xff\xff", "", "", errHeaderSize},
}

// wantOneHeader requires that a header is read alike however its bytes arrive,
// and whatever follows. It returns the answer to the whole.
func wantOneHeader(t *testing.T, b []byte) (proxyHeader, int, error) {
	t.Helper()
	h, took, err := parseProxyHeader(b)
	decided := false
	for cut := range min(len(b), mostHeader+1) + 1 {
		got, gotTook, gotErr := parseProxyHeader(b[:cut:cut])
		short := errors.Is(gotErr, socks.ErrShort)
		decided = decided || !short
		if decided && (got != h || gotTook != took || !errors.Is(gotErr, err)) || short && (got != proxyHeader{} || gotTook != 0) {
			t.Fatalf("cut at %d of %d: %v, %d, %v; the whole: %v, %d, %v", cut, len(b), got, gotTook, gotErr, h, took, err)
		}
		if err == nil && short != (cut < took) {
			t.Fatalf("cut at %d of a header of %d bytes: %v", cut, took, gotErr)
		}
	}
	tailed, tailedTook, tailedErr := parseProxyHeader(slices.Concat(b, b, []byte{0}))
	if !errors.Is(err, socks.ErrShort) && (tailed != h || tailedTook != took || !errors.Is(tailedErr, err)) {
		t.Fatalf("with a tail: %v, %d, %v; without: %v, %d, %v", tailed, tailedTook, tailedErr, h, took, err)
	}
	return h, took, err
}

func TestParseProxyHeader(t *testing.T) {
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			h, took, err := wantOneHeader(t, []byte(test.wire))
			if test.want != nil {
				if !errors.Is(err, test.want) || h != (proxyHeader{}) || took != 0 {
					t.Fatalf("%v, %d, %v; want %v", h, took, err, test.want)
				}
				return
			}
			var want proxyHeader
			if test.client != "" {
				want = proxyHeader{netip.MustParseAddrPort(test.client), netip.MustParseAddrPort(test.local)}
			}
			if err != nil || h != want || took != len(test.wire) {
				t.Fatalf("%v, %d, %v; want %v, %d", h, took, err, want, len(test.wire))
			}
		})
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, seed := range proxyHeaders {
		f.Add([]byte(seed.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		h, took, err := wantOneHeader(t, b)
		if !bytes.Equal(b, before) {
			t.Fatal("the parser wrote into its input")
		}
		if h.client.IsValid() != h.local.IsValid() || h.client.Addr().Is4In6() || h.client.Addr().Zone() != "" {
			t.Fatalf("%v", h)
		}
		writtenHeaders(t, h)
		switch {
		case err != nil:
			if errors.Is(err, socks.ErrShort) && len(b) >= mostHeader {
				t.Fatalf("%d bytes are not enough", len(b))
			}
		case b[0] == 'P':
			if took > maxHeaderLine || string(b[took-2:took]) != "\r\n" || strings.Count(string(b[:took]), "\r") != 1 {
				t.Fatalf("%q is not one line", b[:took])
			}
		case took > mostHeader || took < headerHead:
			t.Fatalf("%d bytes", took)
		}
	})
}

// writtenHeaders wants what is written of h to be read as h, whatever follows.
func writtenHeaders(t *testing.T, h proxyHeader) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		wire := AppendProxyHeader([]byte("before"), version, h.client, h.local)[len("before"):]
		got, took, err := parseProxyHeader(append(bytes.Clone(wire), 5))
		if err != nil || took != len(wire) || got != h {
			t.Fatalf("version %d of %v: %q is read as %v, %d bytes, %v", version, h, wire, got, took, err)
		}
	}
}

func TestAppendProxyHeader(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, test := range []struct{ client, local netip.AddrPort }{
		{},
		{at("192.0.2.1:40122"), at("198.51.100.7:1080")},
		{at("[2001:db8::1]:1"), at("[2001:db8::2]:65535")},
		{at("192.0.2.1:40122"), at("[2001:db8::2]:1080")}, // of two families
	} {
		writtenHeaders(t, proxyHeader(test))
	}
	zoned := AppendProxyHeader(nil, 1, at("[fe80::1%eth0]:1"), at("[::ffff:192.0.2.1]:2"))
	if want := "PROXY TCP6 fe80::1 ::ffff:192.0.2.1 1 2\r\n"; string(zoned) != want {
		t.Errorf("%q, want %q", zoned, want)
	}
}

// balanced is a server behind the load balancers of 127.0.0.0/30.
func balanced(t *testing.T, l Listener) (*rig, chan *Request) {
	t.Helper()
	asked := make(chan *Request, 10)
	policy := deciding(func(_ context.Context, r *Request) (Grant, error) {
		asked <- r
		return Grant{}, Denied
	})
	l.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/30")}
	return inMemory(t, &Server{Policy: policy}, l), asked
}

// inPieces runs a test on a fake clock with all bytes at once, and one by one.
func inPieces(t *testing.T, name string, run func(t *testing.T, size int)) {
	t.Helper()
	for _, size := range []int{64 << 10, 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, size) })
		})
	}
}

// sendPieces sends text in pieces that arrive one after the other, until it is
// told that nobody reads them any more.
func sendPieces(c io.Writer, text string, size int) {
	for piece := range slices.Chunk([]byte(text), size) {
		if _, err := c.Write(piece); err != nil {
			return
		}
		synctest.Wait()
	}
}

func TestProxyHeaderNamesTheClient(t *testing.T) {
	peer := netip.AddrPortFrom(clientAt, 1)
	for _, test := range []struct {
		name, wire    string
		client, local netip.AddrPort
	}{
		{"1", header1, netip.MustParseAddrPort("192.0.2.1:40122"), netip.MustParseAddrPort("198.51.100.7:1080")},
		{"2", header2, netip.MustParseAddrPort("192.0.2.1:40122"), netip.MustParseAddrPort("198.51.100.7:1080")},
		{"the longest", proxyHeaders[8].wire, netip.MustParseAddrPort("192.0.2.1:40122"), netip.MustParseAddrPort("198.51.100.7:1080")},
		{"1, nobody", "PROXY UNKNOWN\r\n", peer, proxyAt},
		{"2, local", sig + "\x20\x00\x00\x00", peer, proxyAt},
	} {
		for _, request := range []string{string(proxytest.Connect4(targetAt, "bob")), "CONNECT 127.0.0.2:80 HTTP/1.1\r\nHost: 127.0.0.2:80\r\n\r\n"} {
			inPieces(t, test.name, func(t *testing.T, size int) {
				r, asked := balanced(t, Listener{})
				c := r.client()
				sendPieces(c, test.wire+request, size)
				got := <-asked
				if got.Client != test.client || got.Local != test.local || !got.Relayed {
					t.Errorf("the request is of %v to %v, relayed %v", got.Client, got.Local, got.Relayed)
				}
				c.Close()
				if s := r.next(Denied); s.Client != test.client || s.Through != peer {
					t.Errorf("the session is of %v through %v", s.Client, s.Through)
				}
			})
		}
	}
}

// TestProxyHeaderLasts: the second request of a connection is of the same client.
func TestProxyHeaderLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := balanced(t, Listener{})
		c := r.client()
		proxytest.Say(t, c, []byte(header1))
		for range 2 {
			proxytest.Say(t, c, []byte("GET http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n"))
			if got := <-asked; got.Client.String() != "192.0.2.1:40122" || !got.Relayed {
				t.Errorf("the request is of %v", got.Client)
			}
			if s := r.next(Denied); s.Through.Addr() != clientAt {
				t.Errorf("the session came through %v", s.Through)
			}
		}
		c.Close()
	})
}

// TestProxyHeaderGarbage: who must say a header and does not, and who may not
// and does, gets no answer.
func TestProxyHeaderGarbage(t *testing.T) {
	stranger := netip.MustParseAddr("127.0.0.4")
	for _, test := range []struct {
		name, wire string
		from       netip.Addr
	}{
		{"none", string(proxytest.Connect4(targetAt, "bob")), clientAt},
		{"none, HTTP", "GET http://127.0.0.2/ HTTP/1.1\r\n\r\n", clientAt},
		{"none, TLS", "\x16\x03\x01", clientAt},
		{"broken", "PROXY TCP4 \r\n", clientAt},
		{"too long", "PROXY UNKNOWN " + strings.Repeat("x", 200), clientAt},
		{"a stranger's 1", header1, stranger},
		{"a stranger's 2", header2, stranger},
		{"garbage behind it", header1 + "\x00", clientAt},
	} {
		inPieces(t, test.name, func(t *testing.T, size int) {
			r, asked := balanced(t, Listener{})
			c := r.client(test.from)
			sendPieces(c, test.wire, size)
			if rest, _ := proxytest.End(c); len(rest) > 0 {
				t.Errorf("it was answered %q", rest)
			}
			r.next(Garbage)
			if len(asked) > 0 {
				t.Error("the policy was asked")
			}
		})
	}
}

// TestProxyHeaderOfNobody: strangers are served as ever, also with a first
// letter that a header begins with too.
func TestProxyHeaderOfNobody(t *testing.T) {
	for _, request := range []string{string(proxytest.Connect4(targetAt, "bob")), "PROPFIND http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			r, asked := balanced(t, Listener{})
			c := r.client(netip.MustParseAddr("127.0.0.4"))
			for i := range len(request) {
				proxytest.Say(t, c, []byte(request[i:i+1]))
				synctest.Wait()
			}
			if got := <-asked; got.Client.Addr() != netip.MustParseAddr("127.0.0.4") || got.Relayed {
				t.Errorf("the request is of %v, relayed %v", got.Client, got.Relayed)
			}
			c.Close()
			if s := r.next(Denied); s.Through.IsValid() {
				t.Errorf("the session came through %v", s.Through)
			}
		})
	}
}

// TestProxyHeaderSlow: a header has no more time than any handshake.
func TestProxyHeaderSlow(t *testing.T) {
	for _, wire := range []string{"", "PROXY TCP4 192.0", sig, header1} {
		synctest.Test(t, func(t *testing.T) {
			r, _ := balanced(t, Listener{})
			c := r.client()
			proxytest.Say(t, c, []byte(wire))
			r.next(HandshakeSlow)
			proxytest.Ends(t, c)
		})
	}
}

// TestProxyHeaderBeforeTLS: a header stands before TLS, and in the clear.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	ca := newAuthority(t)
	asked := make(chan *Request, 1)
	policy := deciding(func(ctx context.Context, r *Request) (Grant, error) {
		asked <- r
		return anything(ctx, r)
	})
	r := onLoopback(t, &Server{Policy: policy}, Listener{TLS: ca.server(t), ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	plain := proxytest.Dial(t, r.address)
	proxytest.Say(t, plain, []byte(header2))
	c := tls.Client(plain, ca.client())
	proxytest.Say(t, c, proxytest.Connect4(proxytest.Echo(t, "127.0.0.1"), "bob"))
	proxytest.Granted4(t, c)
	proxytest.Say(t, c, []byte("there and back"))
	proxytest.Hear(t, c, "there and back")
	if got := <-asked; got.Client.String() != "192.0.2.1:40122" {
		t.Errorf("the request is of %v", got.Client)
	}
	c.Close()
	if s := r.next(Closed); !s.TLS || s.Through.Addr() != clientAt {
		t.Errorf("TLS %v, through %v", s.TLS, s.Through)
	}
}
