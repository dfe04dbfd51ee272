package socks_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// Lengths at, around and far beyond every bound of a request.
var lengths = []int{0, 1, 2, 127, 128, 254, 255, 256, 257, 1023, 1024, 1025, 4096, 65535, 65536, 65537}

var requests4 = []struct {
	name string
	in   string
	want socks.Request4
}{
	{
		"CONNECT, the paper's section 1", "\x04\x01\x00\x50\xc6\x33\x64\x07fred\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("198.51.100.7"), UserID: "fred"},
	},
	{
		"BIND, the paper's section 2", "\x04\x02\x00\x15\xc6\x33\x64\x07fred\x00",
		socks.Request4{Command: socks.Bind, Port: 21, IP: netip.MustParseAddr("198.51.100.7"), UserID: "fred"},
	},
	{
		"no userid", "\x04\x01\xff\xff\x7f\x00\x00\x01\x00",
		socks.Request4{Command: socks.Connect, Port: 65535, IP: netip.MustParseAddr("127.0.0.1")},
	},
	{
		"nothing but zeros", "\x04\x00\x00\x00\x00\x00\x00\x00\x00",
		socks.Request4{IP: netip.IPv4Unspecified()},
	},
	{
		"an unknown command is no error here", "\x04\xff\x01\x00\xff\xff\xff\xff\xff\x00",
		socks.Request4{Command: 255, Port: 256, IP: netip.MustParseAddr("255.255.255.255"), UserID: "\xff"},
	},
	{
		"every byte of a userid but NUL", "\x04\x01\x00\x01\x01\x02\x03\x04" + everyByte + "\x00",
		socks.Request4{Command: socks.Connect, Port: 1, IP: netip.MustParseAddr("1.2.3.4"), UserID: everyByte},
	},
	{
		"4a", "\x04\x01\x01\xbb\x00\x00\x00\x01fred\x00www.example.com\x00",
		socks.Request4{Command: socks.Connect, Port: 443, IP: netip.MustParseAddr("0.0.0.1"), UserID: "fred", Host: "www.example.com"},
	},
	{
		"4a, any x but 0 of 0.0.0.x", "\x04\x02\x00\x15\x00\x00\x00\xff\x00h\x00",
		socks.Request4{Command: socks.Bind, Port: 21, IP: netip.MustParseAddr("0.0.0.255"), Host: "h"},
	},
	{
		"4a, the host as sent", "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + everyByte + "\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("0.0.0.1"), Host: everyByte},
	},
	{
		"0.0.0.0 is not 4a", "\x04\x01\x00\x50\x00\x00\x00\x00a\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.IPv4Unspecified(), UserID: "a"},
	},
	{
		"0.0.1.1 is not 4a", "\x04\x01\x00\x50\x00\x00\x01\x01a\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("0.0.1.1"), UserID: "a"},
	},
	{
		"0.1.0.1 is not 4a", "\x04\x01\x00\x50\x00\x01\x00\x01a\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("0.1.0.1"), UserID: "a"},
	},
	{
		"1.0.0.1 is not 4a", "\x04\x01\x00\x50\x01\x00\x00\x01a\x00",
		socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("1.0.0.1"), UserID: "a"},
	},
}

// everyByte is the 255 bytes that are not NUL.
var everyByte = func() string {
	var b []byte
	for c := 1; c < 256; c++ {
		b = append(b, byte(c))
	}
	return string(b)
}()

func TestParseRequest4(t *testing.T) {
	for _, test := range requests4 {
		t.Run(test.name, func(t *testing.T) {
			wantShort(t, test.in)
			for _, tail := range []string{"", "\x00", "GET / HTTP/1.0\r\n\r\n", test.in} {
				wantRequest(t, test.in, tail, test.want)
			}
			if got := string(test.want.Append([]byte("before"))); got != "before"+test.in {
				t.Errorf("Append wrote %q, want %q", got, "before"+test.in)
			}
			if want := strings.HasPrefix(test.name, "4a"); test.want.Is4a() != want {
				t.Errorf("Is4a is %v, want %v", !want, want)
			}
		})
	}
}

// wantShort requires that a request is not taken for whole when it is cut,
// wherever that is.
func wantShort(t *testing.T, request string) {
	t.Helper()
	for cut := range request {
		if r, n, err := socks.ParseRequest4([]byte(request[:cut]), 255); !errors.Is(err, socks.ErrShort) || n != 0 || r != (socks.Request4{}) {
			t.Errorf("cut at %d: %+v, %d, %v; want ErrShort and nothing else", cut, r, n, err)
		}
	}
}

// wantRequest requires that a request is found before a tail, and that neither changes.
func wantRequest(t *testing.T, request, tail string, want socks.Request4) {
	t.Helper()
	arrived := []byte(request + tail)
	r, n, err := socks.ParseRequest4(arrived, 255)
	if err != nil || r != want || n != len(request) {
		t.Errorf("with the tail %q: %+v, %d, %v; want %+v, %d", tail, r, n, err, want, len(request))
	}
	if string(arrived) != request+tail {
		t.Errorf("the input was changed to %q", arrived)
	}
}

func TestParseRequest4KeepsNothingOfItsInput(t *testing.T) {
	arrived := []byte("\x04\x01\x01\xbb\x00\x00\x00\x01fred\x00www.example.com\x00")
	r, _, err := socks.ParseRequest4(arrived, 255)
	if err != nil {
		t.Fatal(err)
	}
	for i := range arrived {
		arrived[i] = 'X'
	}
	if r.UserID != "fred" || r.Host != "www.example.com" {
		t.Errorf("%+v changed with the buffer that it was read from", r)
	}
}

func TestParseRequest4Version(t *testing.T) {
	for version := range 256 {
		want := socks.ErrVersion
		if version == 4 {
			want = socks.ErrShort
		}
		for length := 1; length < 8; length++ {
			head := append([]byte{byte(version)}, make([]byte, length-1)...)
			if _, n, err := socks.ParseRequest4(head, 255); !errors.Is(err, want) || n != 0 {
				t.Errorf("%d bytes that begin with %d: %d, %v; want %v", length, version, n, err, want)
			}
		}
	}
	if _, n, err := socks.ParseRequest4(nil, 255); !errors.Is(err, socks.ErrShort) || n != 0 {
		t.Errorf("no byte: %d, %v; want ErrShort", n, err)
	}
}

// A userid of every length around the bounds, for SOCKS 4 and before a 4a host,
// ended and not: what is longer than the limit is refused with or without its
// NUL, and never taken for a shorter one.
func TestParseRequest4UserIDLength(t *testing.T) {
	for _, limit := range []int{0, 1, 255, 256, 1024} {
		for _, length := range lengths {
			for _, head := range []string{"\x04\x01\x00\x50\x01\x02\x03\x04", "\x04\x01\x00\x50\x00\x00\x00\x01"} {
				wantUserIDBound(t, head, length, limit)
			}
		}
	}
}

func wantUserIDBound(t *testing.T, head string, length, limit int) {
	t.Helper()
	var wantEnded, wantUnended error = nil, socks.ErrShort
	if length > limit {
		wantEnded, wantUnended = socks.ErrUserIDLength, socks.ErrUserIDLength
	}
	var want string
	if wantEnded == nil {
		want = strings.Repeat("u", length)
	}
	sent := head + strings.Repeat("u", length)
	r, _, err := socks.ParseRequest4([]byte(sent+"\x00host\x00"), limit)
	if !errors.Is(err, wantEnded) || r.UserID != want {
		t.Errorf("%d bytes, limit %d, after %x: %d bytes of a userid, %v; want %v", length, limit, head, len(r.UserID), err, wantEnded)
	}
	if _, _, err := socks.ParseRequest4([]byte(sent), limit); !errors.Is(err, wantUnended) {
		t.Errorf("%d bytes, limit %d, after %x, without NUL: %v, want %v", length, limit, head, err, wantUnended)
	}
}

func TestParseRequest4HostLength(t *testing.T) {
	for _, userid := range []string{"", "fred", strings.Repeat("u", 255)} {
		head := "\x04\x01\x00\x50\x00\x00\x00\x01" + userid + "\x00"
		for _, length := range lengths {
			host := strings.Repeat("h", length)
			var wantEnded, wantUnended error = nil, socks.ErrShort
			if length == 0 {
				wantEnded = socks.ErrHostLength
			} else if length > 255 {
				wantEnded, wantUnended = socks.ErrHostLength, socks.ErrHostLength
			}
			r, n, err := socks.ParseRequest4([]byte(head+host+"\x00tail"), 255)
			if !errors.Is(err, wantEnded) || (err == nil && (r.Host != host || r.UserID != userid || n != len(head)+length+1)) {
				t.Errorf("userid of %d, host of %d: %d bytes of a host, %d taken, %v; want %v", len(userid), length, len(r.Host), n, err, wantEnded)
			}
			if _, n, err := socks.ParseRequest4([]byte(head+host), 255); !errors.Is(err, wantUnended) || n != 0 {
				t.Errorf("userid of %d, host of %d without NUL: %d, %v; want %v", len(userid), length, n, err, wantUnended)
			}
		}
	}
}

// The bounds hold at the byte that breaks them: whoever feeds the parser as
// bytes arrive never holds more than the longest request.
func TestParseRequest4RefusesAtTheFirstByteTooMany(t *testing.T) {
	const limit = 1024
	const longest = 8 + limit + 1 + socks.MaxHost + 1
	tests := []struct {
		name  string
		in    string
		want  error
		after int // bytes that must suffice
	}{
		{"userid", "\x04\x01\x00\x50\x01\x02\x03\x04" + strings.Repeat("u", 65536), socks.ErrUserIDLength, 8 + limit + 1},
		{"empty userid, host", "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + strings.Repeat("h", 65536), socks.ErrHostLength, 8 + 1 + 256},
		{"longest userid, host", "\x04\x01\x00\x50\x00\x00\x00\x01" + strings.Repeat("u", limit) + "\x00" + strings.Repeat("h", 65536), socks.ErrHostLength, longest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := socks.ParseRequest4([]byte(test.in[:test.after-1]), limit); !errors.Is(err, socks.ErrShort) {
				t.Errorf("%d bytes: %v, want ErrShort", test.after-1, err)
			}
			for _, length := range []int{test.after, test.after + 1, len(test.in)} {
				if _, _, err := socks.ParseRequest4([]byte(test.in[:length]), limit); !errors.Is(err, test.want) {
					t.Errorf("%d bytes: %v, want %v", length, err, test.want)
				}
			}
			whole := []byte(test.in)
			if n := testing.AllocsPerRun(10, func() { _, _, _ = socks.ParseRequest4(whole, limit) }); n != 0 {
				t.Errorf("refusing it makes %v allocations", n)
			}
		})
	}
}

// A request that was cut short before its host must not be taken for one with
// the userid in the host's place, however slowly the bytes come.
func TestParseRequest4ByteByByte(t *testing.T) {
	want := socks.Request4{Command: socks.Connect, Port: 80, IP: netip.MustParseAddr("0.0.0.9"), UserID: strings.Repeat("u", 255), Host: strings.Repeat("h", 255)}
	wire := want.Append(nil)
	for cut := range wire {
		if _, _, err := socks.ParseRequest4(wire[:cut], 255); !errors.Is(err, socks.ErrShort) {
			t.Fatalf("cut at %d: %v, want ErrShort", cut, err)
		}
	}
	if r, n, err := socks.ParseRequest4(wire, 255); err != nil || r != want || n != len(wire) {
		t.Errorf("%+v, %d, %v; want %+v, %d", r, n, err, want, len(wire))
	}
}

func TestZeroRequest4IsNot4a(t *testing.T) {
	if (socks.Request4{}).Is4a() || (socks.Request4{IP: netip.MustParseAddr("::1")}).Is4a() {
		t.Error("a request without an IPv4 address is 4a")
	}
}

func TestReply4(t *testing.T) {
	for _, version := range []byte{0, 4} {
		for code := range 256 {
			wire := []byte{version, byte(code), 0x04, 0x38, 198, 51, 100, 7}
			wantReply(t, wire, socks.Reply4{Version: version, Code: socks.Code4(code), Port: 1080, IP: netip.MustParseAddr("198.51.100.7")})
		}
	}
}

// wantReply requires that wire is want, cut nowhere, whatever follows it.
func wantReply(t *testing.T, wire []byte, want socks.Reply4) {
	t.Helper()
	for cut := range wire {
		if r, n, err := socks.ParseReply4(wire[:cut]); !errors.Is(err, socks.ErrShort) || n != 0 || r != (socks.Reply4{}) {
			t.Errorf("%x cut at %d: %+v, %d, %v; want ErrShort", wire, cut, r, n, err)
		}
	}
	for _, tail := range []string{"", "\x00", "220 ready\r\n", string(wire)} {
		r, n, err := socks.ParseReply4(append(bytes.Clone(wire), tail...))
		if err != nil || n != 8 || r != want {
			t.Errorf("%x with the tail %q: %+v, %d, %v; want %+v", wire, tail, r, n, err, want)
		}
	}
	if got := want.Append([]byte("before")); string(got) != "before"+string(wire) {
		t.Errorf("Append wrote %x, want %x", got[6:], wire)
	}
}

func TestParseReply4Version(t *testing.T) {
	for version := range 256 {
		want := socks.ErrVersion
		if version == 0 || version == 4 {
			want = socks.ErrShort
		}
		for length := 1; length < 8; length++ {
			head := append([]byte{byte(version)}, make([]byte, length-1)...)
			if _, n, err := socks.ParseReply4(head); !errors.Is(err, want) || n != 0 {
				t.Errorf("%d bytes that begin with %d: %d, %v; want %v", length, version, n, err, want)
			}
		}
	}
	if _, n, err := socks.ParseReply4([]byte("\x05\x5a\x00\x00\x00\x00\x00\x00")); !errors.Is(err, socks.ErrVersion) || n != 0 {
		t.Errorf("a whole reply of version 5: %d, %v; want ErrVersion", n, err)
	}
}

func TestNewReply4(t *testing.T) {
	tests := []struct {
		addr netip.AddrPort
		want string
	}{
		{netip.MustParseAddrPort("198.51.100.7:1080"), "\x00\x5a\x04\x38\xc6\x33\x64\x07"},
		{netip.MustParseAddrPort("[::ffff:198.51.100.7]:1080"), "\x00\x5a\x04\x38\xc6\x33\x64\x07"},
		{netip.MustParseAddrPort("[2001:db8::1]:65535"), "\x00\x5a\xff\xff\x00\x00\x00\x00"},
		{netip.MustParseAddrPort("[fe80::1%eth0]:1"), "\x00\x5a\x00\x01\x00\x00\x00\x00"},
		{netip.AddrPort{}, "\x00\x5a\x00\x00\x00\x00\x00\x00"},
		{netip.AddrPortFrom(netip.Addr{}, 21), "\x00\x5a\x00\x15\x00\x00\x00\x00"},
	}
	for _, test := range tests {
		if got := string(socks.NewReply4(socks.Granted4, test.addr).Append(nil)); got != test.want {
			t.Errorf("the reply for %v is %x, want %x", test.addr, got, test.want)
		}
	}
}

// The numbers are the paper's, and each says something of its own.
func TestCodes(t *testing.T) {
	said := map[string]socks.Code4{}
	for number, code := range map[byte]socks.Code4{90: socks.Granted4, 91: socks.Rejected4, 92: socks.NoIdentd4, 93: socks.OtherUser4, 94: 94, 0: 0} {
		if byte(code) != number {
			t.Errorf("code %d is %d on the wire", number, code)
		}
		if other, taken := said[code.String()]; taken || code.String() == "" {
			t.Errorf("codes %d and %d both say %q", code, other, code)
		}
		said[code.String()] = code
	}
	for command, word := range map[socks.Command]string{1: "connect", 2: "bind", 3: "udp", 0: "unknown", 4: "unknown", 255: "unknown"} {
		if command.String() != word {
			t.Errorf("command %d is called %q, want %q", byte(command), command, word)
		}
	}
}
