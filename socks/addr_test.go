package socks_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/socks"
)

// label63 and the names made of it are as long as a label and a name can be.
var (
	label63 = strings.Repeat("a", 63)
	name253 = label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61)
)

// spellings are hosts as clients write them, and their canonical form; an empty
// one means that the host is refused.
var spellings = []struct{ host, want string }{
	// IPv4, plain and as inet_aton reads it.
	{"127.0.0.1", "127.0.0.1"},
	{"127.0.0.1.", "127.0.0.1"},
	{"[127.0.0.1]", "127.0.0.1"},
	{"127.1", "127.0.0.1"},
	{"127.1.", "127.0.0.1"},
	{"127.0.1", "127.0.0.1"},
	{"127.65530", "127.0.255.250"},
	{"127.16777215", "127.255.255.255"},
	{"127.16777216", ""},
	{"127.0.65535", "127.0.255.255"},
	{"127.0.65536", ""},
	{"127.0.0.256", ""},
	{"256.0.0.1", ""},
	{"127.256.1", ""},
	{"2130706433", "127.0.0.1"},
	{"4294967295", "255.255.255.255"},
	{"4294967296", ""},
	{"18446744073709551616", ""},
	{"36893488149549809665", ""}, // 127.0.0.1 but for a carry out of 64 bits
	{"0x7f000001", "127.0.0.1"},
	{"0X7F000001", "127.0.0.1"},
	{"0x7f.1", "127.0.0.1"},
	{"0x7F.0x0.0x0.0x1", "127.0.0.1"},
	{"0x100000000", ""},
	{"0x0000000000000007f.1", "127.0.0.1"},
	{"0177.0.0.1", "127.0.0.1"},
	{"0177.0.0.01", "127.0.0.1"},
	{"00000177.1", "127.0.0.1"},
	{"017700000001", "127.0.0.1"},
	{"08.0.0.1", ""},
	{"127.0.0.09", ""},
	{"010.8", "8.0.0.8"},
	{"0", "0.0.0.0"},
	{"0.", "0.0.0.0"},
	{"00", "0.0.0.0"},
	{"0.0.0.0", "0.0.0.0"},
	{"1.2.3.4.5", ""},
	{"1.2.3.4.0", ""},
	{"1.2.3.4..", ""},
	{"1..2", ""},
	{"1.2.3.", "1.2.0.3"},
	{".1.2.3", ""},
	{"-1", "-1"}, // a hyphen makes it a name
	{"+1", ""},
	{"1e1", "1e1"},
	{"1_0", "1_0"},
	{"1.2.3.0xg", "1.2.3.0xg"},
	{"1.2.3.0x", "1.2.3.0"},
	{"www.1", ""},
	{"a.b.0x1", ""},
	{"127.0.0.1 ", ""},
	{" 127.0.0.1", ""},
	{"127.0.0.1:80", ""},
	{"127.0.0.1%eth0", ""},
	{"127.0.0.1/8", ""},
	{"127\u30020\u30020\u30021", ""}, // ideographic full stops
	{"\uff1127.0.0.1", ""},           // a fullwidth digit
	{"169.254.43518", "169.254.169.254"},
	{"2852039166", "169.254.169.254"},

	// IPv6, mapped addresses, zones, brackets.
	{"::1", "::1"},
	{"[::1]", "::1"},
	{"0:0:0:0:0:0:0:1", "::1"},
	{"0000:0000:0000:0000:0000:0000:0000:0001", "::1"},
	{"::", "::"},
	{"::ffff:127.0.0.1", "127.0.0.1"},
	{"[::ffff:127.0.0.1]", "127.0.0.1"},
	{"::FFFF:7F00:1", "127.0.0.1"},
	{"0:0:0:0:0:ffff:7f00:0001", "127.0.0.1"},
	{"::ffff:127.0.0.1%lo", "127.0.0.1"},
	{"::ffff:0:7f00:1", "::ffff:0:7f00:1"}, // translated, not mapped
	{"::127.0.0.1", "::7f00:1"},
	{"::ffff:127.1", ""},
	{"::ffff:0177.0.0.1", ""},
	{"fe80::1%eth0", "fe80::1"},
	{"[fe80::1%25eth0]", "fe80::1"},
	{"fe80::1%eth0.100", "fe80::1"},
	{"fe80::1%", ""},
	{"fe80::1%eth0\x00", ""},
	{"fe80::1%eth 0", ""},
	{"::1%\nlevel=info", ""},
	{"::%[", ""},
	{"2001:DB8::A", "2001:db8::a"},
	{"::1.", ""},
	{"[::1].", ""},
	{"[::1", ""},
	{"::1]", ""},
	{"[[::1]]", ""},
	{"[::1]:80", ""},
	{"[]", ""},
	{"1:2:3:4:5:6:7", ""},
	{"::1::", ""},
	{"::12345", ""},
	{"[127.1]", ""},
	{"[example.com]", ""},

	// Names.
	{"example.com", "example.com"},
	{"example.com.", "example.com"},
	{"example.com..", ""},
	{"EXAMPLE.Com", "example.com"},
	{"LOCALHOST.", "localhost"},
	{"a", "a"},
	{"_dmarc.example.com", "_dmarc.example.com"},
	{"xn--bcher-kva.example", "xn--bcher-kva.example"},
	{"a--b-", "a--b-"},
	{"1.2.3.4.example", "1.2.3.4.example"},
	{"127.0.0.1.nip.io", "127.0.0.1.nip.io"},
	{"0x7f.example", "0x7f.example"},
	{"cafe", "cafe"},
	{"0xcafe", "0.0.202.254"},
	{label63 + ".example", label63 + ".example"},
	{label63 + "a.example", ""},
	{name253, name253},
	{name253 + ".", name253},
	{"a" + name253, ""},
	{strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"},
	{strings.Repeat("a.", 127) + "a", ""},
	{strings.Repeat("h", 255), ""},
	{strings.Repeat("h", 65536), ""},
	{"", ""},
	{".", ""},
	{"..", ""},
	{".example.com", ""},
	{"a..b", ""},

	// Odd bytes: refused, never cut and never turned into something else.
	{"exam\x00ple.com", ""},
	{"example.com\x00", ""},
	{"example.com\n", ""},
	{"exam ple.com", ""},
	{"example.com\r\nHost: x", ""},
	{"user@example.com", ""},
	{"*.example.com", ""},
	{"example.com/", ""},
	{"example,com", ""},
	{"ex\\ample", ""},
	{"ex`ample{}~[", ""},
	{"b\xfccher.example", ""},
	{"bücher.example", ""},
	{"\u212Aernel.example", ""}, // the Kelvin sign, whose lower case is an ASCII k
	{"\u0130nternal", ""},       // a dotted capital I
	{"\u017Fecret", ""},         // a long s
	{"\xff\xfe", ""},
	{"\u200bexample.com", ""},
}

func TestNewAddr(t *testing.T) {
	for _, test := range spellings {
		a, err := socks.NewAddr(test.host, 80)
		switch {
		case test.want == "":
			if !errors.Is(err, socks.ErrHost) || a != (socks.Addr{}) {
				t.Errorf("%.80q: %v, %v; want ErrHost", test.host, a, err)
			}
		case err != nil || a.Host() != test.want || a.Port != 80:
			t.Errorf("%.80q: %v, %v; want the host %q", test.host, a, err, test.want)
		default:
			wantCanonical(t, a)
		}
	}
}

// wantCanonical requires of a target that it has the one form that rules
// compare, and that its own spelling leads back to it.
func wantCanonical(t *testing.T, a socks.Addr) {
	t.Helper()
	if a.IP.IsValid() == (a.Name != "") {
		t.Errorf("%#v is not either an address or a name", a)
	}
	if a.IP.Is4In6() || a.IP.Zone() != "" {
		t.Errorf("%v is mapped or has a zone", a.IP)
	}
	if a.Name != strings.ToLower(a.Name) || strings.HasSuffix(a.Name, ".") {
		t.Errorf("the name %q is not canonical", a.Name)
	}
	if again, err := socks.NewAddr(a.Host(), a.Port); err != nil || again != a {
		t.Errorf("NewAddr(%q) is %v, %v; want %v", a.Host(), again, err, a)
	}
	if again, err := socks.ParseAddr(a.String()); err != nil || again != a {
		t.Errorf("ParseAddr(%q) is %v, %v; want %v", a.String(), again, err, a)
	}
}

func TestParseAddr(t *testing.T) {
	tests := []struct{ in, want string }{
		{"example.com:80", "example.com:80"},
		{"EXAMPLE.com.:443", "example.com:443"},
		{"127.1:0", "127.0.0.1:0"},
		{"[::1]:65535", "[::1]:65535"},
		{"[::ffff:10.0.0.1]:22", "10.0.0.1:22"},
		{"[fe80::1%eth0]:22", "[fe80::1]:22"},
		{"[127.0.0.1]:22", "127.0.0.1:22"},
		{"example.com:00080", "example.com:80"},
		{"example.com:65536", ""},
		{"example.com:-1", ""},
		{"example.com:+80", ""},
		{"example.com:8_0", ""},
		{"example.com:0x50", ""},
		{"example.com: 80", ""},
		{"example.com:http", ""},
		{"example.com:", ""},
		{"example.com", ""},
		{":80", ""},
		{"", ""},
		{":", ""},
		{"::1:80", ""},
		{"[::1]", ""},
		{"[::1]80", ""},
		{"[[::1]]:80", ""},
		{"a:b:80", ""},
		{"exam ple.com:80", ""},
		{"example.com:80\n", ""},
		{strings.Repeat("h", 65536) + ":80", ""},
	}
	for _, test := range tests {
		a, err := socks.ParseAddr(test.in)
		switch {
		case test.want == "":
			if !errors.Is(err, socks.ErrHost) || a != (socks.Addr{}) {
				t.Errorf("%.80q: %v, %v; want ErrHost", test.in, a, err)
			}
		case err != nil || a.String() != test.want:
			t.Errorf("%.80q: %v, %v; want %q", test.in, a, err, test.want)
		default:
			wantCanonical(t, a)
		}
	}
}

func TestFromIP(t *testing.T) {
	tests := []struct{ in, want string }{
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
		{"[fe80::1%eth0]:80", "[fe80::1]:80"},
		{"[::ffff:192.0.2.1%eth0]:80", "192.0.2.1:80"},
	}
	for _, test := range tests {
		a := socks.FromIP(netip.MustParseAddrPort(test.in))
		if a.String() != test.want {
			t.Errorf("FromIP(%s) is %v, want %s", test.in, a, test.want)
		}
		wantCanonical(t, a)
	}
	if a := socks.FromIP(netip.AddrPort{}); a != (socks.Addr{}) {
		t.Errorf("FromIP of nothing is %#v", a)
	}
}
