package socks_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// sentinels5 are all errors that a SOCKS 5 parser may fail with.
var sentinels5 = []error{
	socks.ErrShort, socks.ErrVersion, socks.ErrNoMethods, socks.ErrLogin, socks.ErrReserved, socks.ErrAddressType,
}

// bare makes a parser answer with the sentinel alone, so that answers can be
// compared.
func bare[T any](parse func([]byte) (T, int, error)) func([]byte) (T, int, error) {
	return func(b []byte) (T, int, error) {
		value, took, err := parse(b)
		for _, sentinel := range sentinels5 {
			if errors.Is(err, sentinel) {
				return value, took, sentinel
			}
		}
		return value, took, err
	}
}

// appender is a message.
type appender interface{ Append(b []byte) []byte }

// message5 is a message and what it is on the wire.
type message5[T comparable] struct {
	name string
	wire string
	want T
}

// wantMessages requires that each message is read from its bytes, whatever
// follows and however they are cut, and written back.
func wantMessages[T interface {
	comparable
	appender
}](t *testing.T, parse func([]byte) (T, int, error), messages []message5[T]) {
	t.Helper()
	for _, m := range messages {
		t.Run(m.name, func(t *testing.T) {
			for _, tail := range []string{"", "\x00", "\x05\x01\x00", "GET / HTTP/1.1\r\n\r\n", m.wire} {
				got := wantOneAnswer(t, []byte(m.wire+tail), 600, bare(parse))
				if got != (outcome[T]{m.want, len(m.wire), nil}) {
					t.Fatalf("with the tail %q: %+v; want %+v, %d bytes", tail, got, m.want, len(m.wire))
				}
			}
			if got := string(m.want.Append([]byte("before"))); got != "before"+m.wire {
				t.Errorf("Append wrote %x, want %x", got[6:], m.wire)
			}
			arrived := []byte(m.wire)
			value, _, _ := parse(arrived) // it was read above
			clear(arrived)
			if value != m.want {
				t.Errorf("%+v changed with the buffer that it was read from", value)
			}
		})
	}
}

// failure5 is what is no message.
type failure5 struct {
	name  string
	wire  string
	after int // bytes that must suffice to know
	want  error
}

// wantFailures requires that each is refused from a certain byte on, with
// nothing taken and nothing made of it.
func wantFailures[T comparable](t *testing.T, parse func([]byte) (T, int, error), failures []failure5) {
	t.Helper()
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			for cut := range len(f.wire) + 1 {
				want := outcome[T]{err: socks.ErrShort}
				if cut >= f.after {
					want.err = f.want
				}
				value, took, err := bare(parse)([]byte(f.wire[:cut]))
				if got := (outcome[T]{value, took, err}); got != want {
					t.Fatalf("the first %d bytes: %+v; want %v", cut, got, want.err)
				}
			}
		})
	}
}

// wantVersion requires of a parser that it knows by the first byte what is none
// of its messages.
func wantVersion[T comparable](t *testing.T, parse func([]byte) (T, int, error), versions string) {
	t.Helper()
	for version := range 256 {
		want := socks.ErrVersion
		if strings.IndexByte(versions, byte(version)) >= 0 {
			want = socks.ErrShort
		}
		var nothing T
		if got, n, err := parse([]byte{byte(version)}); !errors.Is(err, want) || n != 0 || got != nothing {
			t.Errorf("first byte %d: %+v, %d, %v; want %v", version, got, n, err, want)
		}
	}
	if _, n, err := parse(nil); !errors.Is(err, socks.ErrShort) || n != 0 {
		t.Errorf("no byte: %d, %v; want ErrShort", n, err)
	}
}

var greetings5 = []message5[socks.Greeting5]{
	{"no authentication", "\x05\x01\x00", socks.Greeting5{Methods: "\x00"}},
	{"a password", "\x05\x01\x02", socks.Greeting5{Methods: "\x02"}},
	{"both, and GSSAPI", "\x05\x03\x00\x01\x02", socks.Greeting5{Methods: "\x00\x01\x02"}},
	{"the client's order is kept", "\x05\x02\x02\x00", socks.Greeting5{Methods: "\x02\x00"}},
	{"one twice", "\x05\x02\x00\x00", socks.Greeting5{Methods: "\x00\x00"}},
	{"only private ones", "\x05\x02\x80\xfe", socks.Greeting5{Methods: "\x80\xfe"}},
	{"128, which is no negative number", "\x05\x80" + everyByte[:128], socks.Greeting5{Methods: everyByte[:128]}},
	{"255, the most there can be", "\x05\xff" + everyByte, socks.Greeting5{Methods: everyByte}},
}

func TestGreeting5(t *testing.T) {
	wantMessages(t, socks.ParseGreeting5, greetings5)
	wantVersion(t, socks.ParseGreeting5, "\x05")
	wantFailures(t, socks.ParseGreeting5, []failure5{
		{"no method", "\x05\x00\x00\x00", 2, socks.ErrNoMethods},
		{"one too few", "\x05\x02\x00", 9, nil},
		{"SOCKS 4", "\x04\x01\x00\x50", 1, socks.ErrVersion},
	})
	for _, test := range []struct {
		methods string
		method  socks.Method
		want    bool
	}{
		{"\x00", socks.NoAuth, true},
		{"\x00", socks.Password, false},
		{"\x01\x02", socks.Password, true},
		{"\x01\x02", socks.NoAuth, false},
		{"\xff", socks.NoAcceptable, true},
		{"", socks.NoAuth, false},
	} {
		if got := (socks.Greeting5{Methods: test.methods}).Offers(test.method); got != test.want {
			t.Errorf("%x offers %d: %v", test.methods, test.method, got)
		}
	}
}

func TestChoice5(t *testing.T) {
	var choices []message5[socks.Choice5]
	for method := range 256 {
		choices = append(choices, message5[socks.Choice5]{"any", "\x05" + string([]byte{byte(method)}), socks.Choice5{Method: socks.Method(method)}})
	}
	wantMessages(t, socks.ParseChoice5, choices)
	wantVersion(t, socks.ParseChoice5, "\x05")
	if socks.NoAuth != 0 || socks.Password != 2 || socks.NoAcceptable != 255 {
		t.Error("the methods have other numbers than the RFC's")
	}
}

var logins5 = []message5[socks.Login5]{
	{"the RFC's", "\x01\x04fred\x06secret", socks.Login5{Name: "fred", Password: "secret"}},
	{"one byte each", "\x01\x01\xff\x01\x01", socks.Login5{Name: "\xff", Password: "\x01"}},
	{"every byte but NUL", "\x01\xff" + everyByte + "\xff" + everyByte, socks.Login5{Name: everyByte, Password: everyByte}},
	{"128, which is no negative number", "\x01\x80" + everyByte[:128] + "\x80" + everyByte[:128], socks.Login5{Name: everyByte[:128], Password: everyByte[:128]}},
	{"the name of one, the password of another", "\x01\x01a\xff" + everyByte, socks.Login5{Name: "a", Password: everyByte}},
	{"a password that looks like a login", "\x01\x01a\x04\x01\x01b\x01", socks.Login5{Name: "a", Password: "\x01\x01b\x01"}},
}

func TestLogin5(t *testing.T) {
	wantMessages(t, socks.ParseLogin5, logins5)
	wantVersion(t, socks.ParseLogin5, "\x01")
	wantFailures(t, socks.ParseLogin5, []failure5{
		{"no name", "\x01\x00\x01p+", 4, socks.ErrLogin},
		{"no password", "\x01\x01u\x00+", 4, socks.ErrLogin},
		{"neither", "\x01\x00\x00+", 3, socks.ErrLogin},
		{"NUL in the name", "\x01\x03u\x00v\x01p+", 7, socks.ErrLogin},
		{"NUL in the password", "\x01\x01u\x03p\x00q+", 7, socks.ErrLogin},
		{"nothing but NUL", "\x01\x01\x00\x01\x00+", 5, socks.ErrLogin},
		{"version 5, as a request has it", "\x05\x01u\x01p", 1, socks.ErrVersion},
		{"a name that is not whole", "\x01\xff" + everyByte[:254], 999, nil},
		{"a password that is not whole", "\x01\x01u\xff" + everyByte[:254], 999, nil},
	})
}

func TestErrorsKeepSecrets(t *testing.T) {
	if _, _, err := socks.ParseLogin5([]byte("\x01\x04fred\x09hunter2\x00!")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error is %v; want one without the password", err)
	}
}

func TestLoginReply5(t *testing.T) {
	wantMessages(t, socks.ParseLoginReply5, []message5[socks.LoginReply5]{
		{"granted", "\x01\x00", socks.LoginReply5{Granted: true}},
		{"refused", "\x01\x01", socks.LoginReply5{}},
	})
	wantVersion(t, socks.ParseLoginReply5, "\x01\x05")
	for _, version := range []byte{1, 5} {
		for status := range 256 {
			r, n, err := socks.ParseLoginReply5([]byte{version, byte(status), 0})
			if err != nil || n != 2 || r.Granted != (status == 0) {
				t.Errorf("version %d, status %d: %+v, %d, %v", version, status, r, n, err)
			}
		}
	}
}

// host5 is an address on the wire and what it is. The names of different
// messages' cases come from here.
type host5 struct {
	name string
	wire string
	want socks.Host5
}

var hosts5 = []host5{
	{"IPv4", "\x01\xc6\x33\x64\x07\x01\xbb", socks.Host5{IP: netip.MustParseAddr("198.51.100.7"), Port: 443}},
	{"IPv4 of zeros", "\x01\x00\x00\x00\x00\x00\x00", socks.Host5{IP: netip.IPv4Unspecified()}},
	{"0.0.0.1, which marks nothing here", "\x01\x00\x00\x00\x01\x00\x50", socks.Host5{IP: netip.MustParseAddr("0.0.0.1"), Port: 80}},
	{"IPv6", "\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\xff\xff", socks.Host5{IP: netip.MustParseAddr("2001:db8::1"), Port: 65535}},
	{"IPv6 of zeros", "\x04" + strings.Repeat("\x00", 18), socks.Host5{IP: netip.IPv6Unspecified()}},
	{"a mapped address stays 16 bytes", "\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x00\x50", socks.Host5{IP: netip.MustParseAddr("::ffff:127.0.0.1"), Port: 80}},
	{"a name", "\x03\x0bexample.com\x00\x50", socks.Host5{Name: "example.com", Port: 80}},
	{"a name as it was sent", "\x03\x0cExample.COM.\x00\x50", socks.Host5{Name: "Example.COM.", Port: 80}},
	{"a name of one byte", "\x03\x01h\x00\x01", socks.Host5{Name: "h", Port: 1}},
	{"no name", "\x03\x00\x00\x50", socks.Host5{Port: 80}},
	{"a name of 128, which is no negative number", "\x03\x80" + everyByte[:128] + "\x00\x50", socks.Host5{Name: everyByte[:128], Port: 80}},
	{"a name of every byte", "\x03\xff" + everyByte + "\x12\x34", socks.Host5{Name: everyByte, Port: 0x1234}},
	{"a name with NUL", "\x03\x03a\x00b\x00\x50", socks.Host5{Name: "a\x00b", Port: 80}},
	{"the text of an address", "\x03\x091.2.3.4:5\x00\x50", socks.Host5{Name: "1.2.3.4:5", Port: 80}},
}

// badHosts5 are cut after the address type where it is unknown.
func badHosts5(head string) []failure5 {
	failures := []failure5{
		{"address type 0", head + "\x00\x01\x02\x03\x04\x00\x50", len(head) + 1, socks.ErrAddressType},
		{"address type 2", head + "\x02\x01\x02\x03\x04\x00\x50", len(head) + 1, socks.ErrAddressType},
		{"address type 5", head + "\x05\x01\x02\x03\x04\x00\x50", len(head) + 1, socks.ErrAddressType},
		{"address type 255", head + "\xff\x01\x02\x03\x04\x00\x50", len(head) + 1, socks.ErrAddressType},
	}
	for _, h := range hosts5 {
		failures = append(failures, failure5{h.name + ", not whole", head + h.wire[:len(h.wire)-1], 9999, nil})
	}
	return failures
}

func requests5() []message5[socks.Request5] {
	var messages []message5[socks.Request5]
	for name, command := range map[string]socks.Command{
		"connect": socks.Connect, "bind": socks.Bind, "udp": socks.Associate,
		"an unknown command is no error here": 4, "command 0": 0, "command 255": 255,
	} {
		for _, h := range hosts5 {
			head := string([]byte{5, byte(command), 0})
			messages = append(messages, message5[socks.Request5]{name + " " + h.name, head + h.wire, socks.Request5{Command: command, Host: h.want}})
		}
	}
	return messages
}

func TestRequest5(t *testing.T) {
	wantMessages(t, socks.ParseRequest5, requests5())
	wantVersion(t, socks.ParseRequest5, "\x05")
	wantFailures(t, socks.ParseRequest5, append(badHosts5("\x05\x01\x00"),
		failure5{"the reserved byte", "\x05\x01\x01\x01\x01\x02\x03\x04\x00\x50", 3, socks.ErrReserved},
		failure5{"the reserved byte, 255", "\x05\x01\xff\x03\x01h\x00\x50", 3, socks.ErrReserved},
		failure5{"a login in its place", "\x01\x01u\x01p", 1, socks.ErrVersion},
	))
	if socks.Connect != 1 || socks.Bind != 2 || socks.Associate != 3 {
		t.Error("the commands have other numbers than the RFC's")
	}
}

func replies5() []message5[socks.Reply5] {
	var messages []message5[socks.Reply5]
	for _, code := range []socks.Code5{socks.Succeeded5, socks.GeneralFailure5, socks.TypeUnsupported5, 9, 255} {
		for _, h := range hosts5 {
			head := string([]byte{5, byte(code), 0})
			messages = append(messages, message5[socks.Reply5]{code.String() + " " + h.name, head + h.wire, socks.Reply5{Code: code, Host: h.want}})
		}
	}
	return messages
}

func TestReply5(t *testing.T) {
	wantMessages(t, socks.ParseReply5, replies5())
	wantVersion(t, socks.ParseReply5, "\x05")
	wantFailures(t, socks.ParseReply5, append(badHosts5("\x05\x00\x00"),
		failure5{"the reserved byte", "\x05\x00\x01\x01\x01\x02\x03\x04\x00\x50", 3, socks.ErrReserved},
	))
}

func datagrams5() []message5[socks.Datagram5] {
	var messages []message5[socks.Datagram5]
	for name, fragment := range map[string]byte{"whole": 0, "first of some": 1, "last": 0x82, "255": 255} {
		for _, h := range hosts5 {
			head := string([]byte{0, 0, fragment})
			messages = append(messages, message5[socks.Datagram5]{name + " " + h.name, head + h.wire, socks.Datagram5{Fragment: fragment, Host: h.want}})
		}
	}
	return messages
}

func TestDatagram5(t *testing.T) {
	wantMessages(t, socks.ParseDatagram5, datagrams5())
	wantFailures(t, socks.ParseDatagram5, append(badHosts5("\x00\x00\x00"),
		failure5{"the first reserved byte", "\x01\x00\x00\x01\x01\x02\x03\x04\x00\x50", 3, socks.ErrReserved},
		failure5{"the second reserved byte", "\x00\x01\x00\x01\x01\x02\x03\x04\x00\x50", 3, socks.ErrReserved},
		failure5{"a request", "\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50", 3, socks.ErrReserved},
	))
}

func TestNewHost5(t *testing.T) {
	for _, test := range []struct {
		addr netip.AddrPort
		want string
	}{
		{netip.MustParseAddrPort("198.51.100.7:1080"), "\x01\xc6\x33\x64\x07\x04\x38"},
		{netip.MustParseAddrPort("[::ffff:198.51.100.7]:1080"), "\x01\xc6\x33\x64\x07\x04\x38"},
		{netip.MustParseAddrPort("[2001:db8::1]:65535"), "\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\xff\xff"},
		{netip.MustParseAddrPort("[fe80::1%eth0]:1"), "\x04\xfe\x80" + strings.Repeat("\x00", 13) + "\x01\x00\x01"},
		{netip.AddrPort{}, "\x01\x00\x00\x00\x00\x00\x00"},
		{netip.AddrPortFrom(netip.Addr{}, 21), "\x01\x00\x00\x00\x00\x00\x15"},
	} {
		got := socks.Reply5{Host: socks.NewHost5(test.addr)}.Append(nil)
		if want := "\x05\x00\x00" + test.want; string(got) != want {
			t.Errorf("the reply for %v is %x, want %x", test.addr, got, want)
		}
	}
}

// Every spelling of an address is one target, whatever its address type.
func TestHost5Addr(t *testing.T) {
	v4, v6 := socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: 80}, socks.Addr{IP: netip.MustParseAddr("2001:db8::1"), Port: 80}
	for _, test := range []struct {
		host socks.Host5
		want socks.Addr
	}{
		{socks.Host5{IP: netip.MustParseAddr("127.0.0.1"), Port: 80}, v4},
		{socks.Host5{IP: netip.MustParseAddr("::ffff:127.0.0.1"), Port: 80}, v4},
		{socks.Host5{Name: "127.0.0.1", Port: 80}, v4},
		{socks.Host5{Name: "127.1", Port: 80}, v4},
		{socks.Host5{Name: "[::ffff:7f00:1]", Port: 80}, v4},
		{socks.Host5{IP: netip.MustParseAddr("2001:db8::1"), Port: 80}, v6},
		{socks.Host5{IP: netip.MustParseAddr("2001:db8::1%lo"), Port: 80}, v6},
		{socks.Host5{Name: "2001:DB8::1", Port: 80}, v6},
		{socks.Host5{Name: "Example.COM.", Port: 80}, socks.Addr{Name: "example.com", Port: 80}},
	} {
		if got, err := test.host.Addr(); err != nil || got != test.want {
			t.Errorf("%+v is %v, %v; want %v", test.host, got, err, test.want)
		}
	}
	for _, name := range []string{"", "a\x00b", "example.com\x00", "a b", ".", "example.com:80", strings.Repeat("h", 255)} {
		if got, err := (socks.Host5{Name: name, Port: 80}).Addr(); !errors.Is(err, socks.ErrHost) || got != (socks.Addr{}) {
			t.Errorf("the name %q is %v, %v; want ErrHost", name, got, err)
		}
	}
}

// The numbers are the RFC's, and each says something of its own.
func TestCodes5(t *testing.T) {
	said := map[string]int{}
	for number, code := range []socks.Code5{
		socks.Succeeded5, socks.GeneralFailure5, socks.NotAllowed5, socks.NetworkUnreachable5, socks.HostUnreachable5,
		socks.Refused5, socks.TTLExpired5, socks.CommandUnsupported5, socks.TypeUnsupported5, 9,
	} {
		if int(code) != number {
			t.Errorf("code %d is %d on the wire", number, byte(code))
		}
		if other, taken := said[code.String()]; taken || code.String() == "" {
			t.Errorf("codes %d and %d both say %q", number, other, code)
		}
		if unknown := strings.Contains(code.String(), "unknown"); unknown != (number == 9) {
			t.Errorf("code %d says %q", number, code)
		}
		said[code.String()] = number
	}
	if a, b := socks.Code5(9).String(), socks.Code5(255).String(); a == b || a == "" {
		t.Errorf("unknown codes say %q and %q", a, b)
	}
}

// Whoever keeps what has arrived never holds more than the longest message.
func TestLongestMessages5(t *testing.T) {
	full := strings.Repeat("\xff", 600)
	for name, test := range map[string]struct {
		longest int
		parse   func(b []byte) (int, error)
		head    string
	}{
		"greeting": {257, func(b []byte) (int, error) { _, n, err := socks.ParseGreeting5(b); return n, err }, "\x05\xff"},
		"login":    {513, func(b []byte) (int, error) { _, n, err := socks.ParseLogin5(b); return n, err }, "\x01\xff"},
		"request":  {262, func(b []byte) (int, error) { _, n, err := socks.ParseRequest5(b); return n, err }, "\x05\x01\x00\x03\xff"},
		"reply":    {262, func(b []byte) (int, error) { _, n, err := socks.ParseReply5(b); return n, err }, "\x05\x00\x00\x03\xff"},
		"datagram": {262, func(b []byte) (int, error) { _, n, err := socks.ParseDatagram5(b); return n, err }, "\x00\x00\x00\x03\xff"},
	} {
		b := append([]byte(test.head), full...)
		if n, err := test.parse(b); n != test.longest || err != nil {
			t.Errorf("%s: %d, %v; want %d bytes", name, n, err, test.longest)
		}
		if n, err := test.parse(b[:test.longest-1]); n != 0 || !errors.Is(err, socks.ErrShort) {
			t.Errorf("%s, one byte less: %d, %v; want ErrShort", name, n, err)
		}
		if !bytes.HasPrefix(b, []byte(test.head)) {
			t.Errorf("%s: the input was changed", name)
		}
	}
}
