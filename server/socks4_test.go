package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/socks"
)

// outcome is what came of feeding a handshake.
type outcome struct {
	over     bool
	refusal  Reason // why it was refused
	reply    string // what is sent then
	protocol Protocol
	command  socks.Command
	identity Identity
	target   socks.Addr
}

func outcomeOf(s step) outcome {
	o := outcome{over: s.over(), reply: string(s.reply)}
	if s.refusal != nil {
		o.refusal = ReasonOf(s.refusal)
	}
	if r := s.request; r != nil {
		o.protocol, o.command, o.identity, o.target = r.Protocol, r.Command, r.Identity, r.Target
	}
	return o
}

func asked(p Protocol, c socks.Command, userid, host string, port uint16) outcome {
	o := outcome{over: true, protocol: p, command: c, target: socks.Addr{Name: host, Port: port}}
	if ip, err := netip.ParseAddr(host); err == nil {
		o.target = socks.Addr{IP: ip, Port: port}
	}
	if userid != "" {
		o.identity = Identity{Name: userid, Proof: Claimed}
	}
	return o
}

func rejected(r Reason) outcome {
	return outcome{over: true, refusal: r, reply: "\x00\x5b\x00\x00\x00\x00\x00\x00"}
}

// head is the first 8 bytes of a request.
func head(command byte, port uint16, a, b, c, d byte) string {
	return string([]byte{4, command, byte(port >> 8), byte(port), a, b, c, d})
}

const marker4a = "\x00\x00\x00\x01"

// longName is a host name of 253 bytes, the longest there is.
var longName = strings.Repeat("a", 61) + strings.Repeat("."+strings.Repeat("b", 63), 3)

type machineCase struct {
	name     string
	listener Listener
	bytes    string
	want     outcome
}

var plainCases = []machineCase{
	{"connect", Listener{}, head(1, 80, 66, 102, 7, 99) + "Fred\x00", asked(SOCKS4, socks.Connect, "Fred", "66.102.7.99", 80)},
	{"no userid", Listener{}, head(1, 65535, 127, 0, 0, 1) + "\x00", asked(SOCKS4, socks.Connect, "", "127.0.0.1", 65535)},
	{"bind", Listener{}, head(2, 21, 10, 0, 0, 9) + "ann\x00", asked(SOCKS4, socks.Bind, "ann", "10.0.0.9", 21)},
	{"unknown commands are whole requests", Listener{}, head(3, 1, 10, 0, 0, 9) + "\x00", asked(SOCKS4, 3, "", "10.0.0.9", 1)},
	{"0.0.0.0 is no mark of 4a", Listener{}, head(2, 21, 0, 0, 0, 0) + "u\x00", asked(SOCKS4, socks.Bind, "u", "0.0.0.0", 21)},
	{"0.0.1.1 is no mark of 4a", Listener{}, head(1, 21, 0, 0, 1, 1) + "u\x00", asked(SOCKS4, socks.Connect, "u", "0.0.1.1", 21)},
	{"any bytes are a userid", Listener{}, head(1, 9, 1, 2, 3, 4) + "\xff\n\x01 %s\x00", asked(SOCKS4, socks.Connect, "\xff\n\x01 %s", "1.2.3.4", 9)},
	{"userid of 255", Listener{}, head(1, 9, 1, 2, 3, 4) + strings.Repeat("u", 255) + "\x00", asked(SOCKS4, socks.Connect, strings.Repeat("u", 255), "1.2.3.4", 9)},
	{"userid of 256", Listener{}, head(1, 9, 1, 2, 3, 4) + strings.Repeat("u", 256) + "\x00", rejected(BadRequest)},
	{"userid of 65,536", Listener{}, head(1, 9, 1, 2, 3, 4) + strings.Repeat("u", 65536) + "\x00", rejected(BadRequest)},
	{"userid of 11 where 10 are taken", Listener{MaxUserID: 10}, head(1, 9, 1, 2, 3, 4) + "12345678901\x00", rejected(BadRequest)},
	{"userid of 1,024 where they are taken", Listener{MaxUserID: 1024}, head(1, 9, 1, 2, 3, 4) + strings.Repeat("u", 1024) + "\x00", asked(SOCKS4, socks.Connect, strings.Repeat("u", 1024), "1.2.3.4", 9)},
	{"userid of 1,025 where more are configured", Listener{MaxUserID: 5000}, head(1, 9, 1, 2, 3, 4) + strings.Repeat("u", 1025) + "\x00", rejected(BadRequest)},
	{"4 is not spoken", Listener{Protocols: []Protocol{SOCKS4a}}, head(1, 80, 1, 2, 3, 4) + "\x00", rejected(Unsupported)},
}

func head4a(command byte, port uint16, userid, host string) string {
	return head(command, port, 0, 0, 0, 1)[:4] + marker4a + userid + "\x00" + host + "\x00"
}

var namedCases = []machineCase{
	{"connect", Listener{}, head4a(1, 80, "Fred", "www.example.com"), asked(SOCKS4a, socks.Connect, "Fred", "www.example.com", 80)},
	{"bind", Listener{}, head4a(2, 21, "", "ftp.example.com"), asked(SOCKS4a, socks.Bind, "", "ftp.example.com", 21)},
	{"0.0.0.255 marks it too", Listener{}, head(1, 80, 0, 0, 0, 255) + "\x00host\x00", asked(SOCKS4a, socks.Connect, "", "host", 80)},
	{"one form of a name", Listener{}, head4a(1, 80, "", "WWW.Example.COM."), asked(SOCKS4a, socks.Connect, "", "www.example.com", 80)},
	{"an address is an address", Listener{}, head4a(1, 80, "", "10.1.2.3"), asked(SOCKS4a, socks.Connect, "", "10.1.2.3", 80)},
	{"an address in hex", Listener{}, head4a(1, 80, "", "0x7f.1"), asked(SOCKS4a, socks.Connect, "", "127.0.0.1", 80)},
	{"a mapped address", Listener{}, head4a(1, 80, "", "::ffff:127.0.0.1"), asked(SOCKS4a, socks.Connect, "", "127.0.0.1", 80)},
	{"an IPv6 address", Listener{}, head4a(1, 80, "", "2001:db8::1"), asked(SOCKS4a, socks.Connect, "", "2001:db8::1", 80)},
	{"the longest name", Listener{}, head4a(1, 80, "", longName), asked(SOCKS4a, socks.Connect, "", longName, 80)},
	{"no host", Listener{}, head4a(1, 80, "u", ""), rejected(BadRequest)},
	{"255 bytes that are no name", Listener{}, head4a(1, 80, "", strings.Repeat("h", 255)), rejected(BadRequest)},
	{"host of 256", Listener{}, head4a(1, 80, "", strings.Repeat("h", 256)), rejected(BadRequest)},
	{"host of 65,536", Listener{}, head4a(1, 80, "", strings.Repeat("h", 65536)), rejected(BadRequest)},
	{"host that would forge a line", Listener{}, head4a(1, 80, "", "a\r\nb"), rejected(BadRequest)},
	{"userid of 256 before the host", Listener{}, head4a(1, 80, strings.Repeat("u", 256), "host"), rejected(BadRequest)},
	{"both as long as can be", Listener{MaxUserID: 1024}, head4a(1, 80, strings.Repeat("u", 1024), longName), asked(SOCKS4a, socks.Connect, strings.Repeat("u", 1024), longName, 80)},
	{"4a is not spoken", Listener{Protocols: []Protocol{SOCKS4}}, head4a(1, 80, "", "host"), rejected(Unsupported)},
}

func TestSOCKS4Machine(t *testing.T) {
	for kind, cases := range map[string][]machineCase{"socks4": plainCases, "socks4a": namedCases} {
		for _, test := range cases {
			t.Run(kind+"/"+test.name, func(t *testing.T) {
				checkMachine(t, &test.listener, []byte(test.bytes), test.want)
			})
		}
	}
}

// checkMachine feeds b whole, cut at every byte, byte by byte, and with a tail.
func checkMachine(t *testing.T, l *Listener, b []byte, want outcome) {
	t.Helper()
	const tail = "\x04\x01the target's"
	for _, behind := range []string{"", tail} {
		h := &socks4{listener: l}
		took, next := h.feed(append(bytes.Clone(b), behind...))
		if got := outcomeOf(next); got != want {
			t.Fatalf("whole, tail %q: %+v, want %+v", behind, got, want)
		}
		if want.refusal == "" && took != len(b) {
			t.Errorf("tail %q: it took %d bytes of %d", behind, took, len(b))
		}
	}
	for cut := range min(len(b), 1500) {
		took, next := (&socks4{listener: l}).feed(b[:cut])
		if next.over() && outcomeOf(next) != want || !next.over() && took != 0 {
			t.Fatalf("the first %d bytes: took %d, %+v", cut, took, outcomeOf(next))
		}
		if next.over() && want.refusal == "" {
			t.Fatalf("the first %d bytes of %d were enough", cut, len(b))
		}
	}
	c := &pieces{data: append(bytes.Clone(b), tail...), size: 1}
	next, rest, err := drive(c, l)
	if got := outcomeOf(next); err != nil || got != want || len(rest) != 0 {
		t.Fatalf("byte by byte: %+v, %q behind it, %v; want %+v", got, rest, err, want)
	}
	if want.refusal == "" && string(c.data) != tail {
		t.Errorf("byte by byte: %q are left on the connection, want %q", c.data, tail)
	}
}

// drive runs a handshake over c, and returns what is behind it as well.
func drive(c net.Conn, l *Listener) (step, []byte, error) {
	d := &driver{exchange: exchangeFor(l), headed: true, buf: make([]byte, 0, handshakeBuffer)}
	d.conn = c
	last, err := d.drive(context.Background(), step{})
	return last, d.buf, err
}

func detectFor(first byte, l *Listener) (handshake, error) { return exchangeFor(l).detect(first) }

func exchangeFor(l *Listener) *exchange {
	return &exchange{server: &Server{}, listener: l, session: NewSession(Record{})}
}

// pieces is a connection that has data to read, some bytes at a time.
type pieces struct {
	net.Conn
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// TestHandshakeIsBounded: whatever comes, a handshake is over before its buffer
// is full. Nothing else ends the driver's loop.
func TestHandshakeIsBounded(t *testing.T) {
	for _, limit := range []int{1, 255, 1024, 1 << 20} {
		for _, ip := range []string{"\x01\x02\x03\x04", marker4a} {
			for userid := range socks.MaxUserID + 2 {
				b := []byte("\x04\x01\x00\x50" + ip + strings.Repeat("u", userid) + "\x00")
				b = append(b, bytes.Repeat([]byte("h"), max(0, handshakeBuffer-len(b)))...)
				h := &socks4{listener: &Listener{MaxUserID: limit}}
				if _, next := h.feed(b[:handshakeBuffer]); !next.over() {
					t.Fatalf("userid of %d, limit %d: %d bytes were not enough", userid, limit, handshakeBuffer)
				}
			}
		}
	}
}

func TestDetect(t *testing.T) {
	only4a := Listener{Protocols: []Protocol{SOCKS4a}}
	for first := range 256 {
		h, err := detectFor(byte(first), &only4a)
		if want := first == 4; (h != nil) != want || (err == nil) != want || !want && ReasonOf(err) != Garbage {
			t.Errorf("first byte %#x: %T, %v", first, h, err)
		}
	}
	if _, err := detectFor(recordHandshake, &Listener{}); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a TLS client where there is none: %v", err)
	}
	if _, err := detectFor(4, &Listener{Protocols: []Protocol{"other"}}); ReasonOf(err) != Garbage {
		t.Errorf("a listener without SOCKS 4: %v, want garbage", err)
	}
}

// FuzzHandshake4: fed whole, byte by byte, in two pieces, and with a tail, the
// handshake says the same and loses and invents nothing.
func FuzzHandshake4(f *testing.F) {
	for _, cases := range [][]machineCase{plainCases, namedCases} {
		for _, c := range cases {
			f.Add([]byte(c.bytes[:min(len(c.bytes), 1400)]), uint16(c.listener.MaxUserID), uint8(9), []byte("GET /"))
		}
	}
	f.Add(proxytest.Connect4(targetAt, "bob"), uint16(3), uint8(1), []byte{0})
	f.Fuzz(func(t *testing.T, b []byte, maxUserID uint16, size uint8, tail []byte) {
		l := &Listener{Protocols: []Protocol{SOCKS4, SOCKS4a}, MaxUserID: int(maxUserID)}
		took, next := (&socks4{listener: l}).feed(b)
		want := outcomeOf(next)
		if took < 0 || took > len(b) || !want.over && took != 0 {
			t.Fatalf("took %d of %d, over: %v", took, len(b), want.over)
		}
		if want.over && len(b) > 0 && b[0] == socks.Version4 {
			checkTail(t, l, b, took, tail)
		}
		checkDriven(t, l, b, 1, want)
		checkDriven(t, l, b, max(1, int(size)), want)
	})
}

func checkTail(t *testing.T, l *Listener, b []byte, took int, tail []byte) {
	t.Helper()
	_, next := (&socks4{listener: l}).feed(b)
	tookToo, nextToo := (&socks4{listener: l}).feed(append(bytes.Clone(b), tail...))
	if outcomeOf(next) != outcomeOf(nextToo) {
		t.Fatalf("with a tail: %+v, want %+v", outcomeOf(nextToo), outcomeOf(next))
	}
	if next.request != nil && tookToo != took {
		t.Fatalf("with a tail it took %d bytes, without %d", tookToo, took)
	}
}

// checkDriven drives a handshake over pieces of b of one size.
func checkDriven(t *testing.T, l *Listener, b []byte, size int, want outcome) {
	t.Helper()
	c := &pieces{data: bytes.Clone(b), size: size}
	next, rest, err := drive(c, l)
	if len(b) > 0 && b[0] != socks.Version4 {
		if ReasonOf(err) != Garbage {
			t.Fatalf("first byte %#x: %v, want garbage", b[0], err)
		}
		return
	}
	got := outcomeOf(next)
	if got != want || got.over != (err == nil) || !got.over && !errors.Is(err, io.EOF) {
		t.Fatalf("pieces of %d: %+v, %v; want %+v", size, got, err, want)
	}
	if left := append(bytes.Clone(rest), c.data...); next.request != nil && !bytes.HasSuffix(b, left) {
		t.Fatalf("pieces of %d: %q are left of %q", size, left, b)
	}
	if next.request != nil {
		took, _ := (&socks4{listener: l}).feed(b)
		if left := len(rest) + len(c.data); left != len(b)-took {
			t.Fatalf("pieces of %d: %d bytes are left, want %d", size, left, len(b)-took)
		}
	}
}
