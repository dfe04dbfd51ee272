//go:build amd64 || arm64

package intercept

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// family is how an address begins.
func family(f uint16, rest ...byte) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, f), rest...)
}

func TestParseAddress(t *testing.T) {
	at := netip.MustParseAddrPort
	for name, c := range map[string]struct {
		in   []byte
		want address
		ok   bool
	}{
		"nothing":              {nil, address{}, false},
		"half a family":        {[]byte{2}, address{}, false},
		"IPv4":                 {family(unix.AF_INET, 1, 187, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0), address{family: unix.AF_INET, to: at("192.0.2.7:443")}, true},
		"IPv4, too short":      {family(unix.AF_INET, 1, 187, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0), address{family: unix.AF_INET}, false},
		"IPv6":                 {appendAddress(nil, at("[2001:db8::7]:53")), address{family: unix.AF_INET6, to: at("[2001:db8::7]:53")}, true},
		"IPv6 without a scope": {appendAddress(nil, at("[2001:db8::7]:53"))[:24], address{family: unix.AF_INET6, to: at("[2001:db8::7]:53")}, true},
		"IPv6 with a scope":    {appendAddress(nil, at("[fe80::1%7]:53")), address{family: unix.AF_INET6, to: at("[fe80::1%7]:53")}, true},
		"IPv6, too short":      {appendAddress(nil, at("[2001:db8::7]:53"))[:23], address{family: unix.AF_INET6}, false},
		"mapped":               {appendAddress(nil, at("[::ffff:192.0.2.7]:80")), address{family: unix.AF_INET6, to: at("[::ffff:192.0.2.7]:80")}, true},
		"a unix socket":        {family(unix.AF_UNIX, []byte("/run/nscd/socket\x00rest")...), address{family: unix.AF_UNIX, path: "/run/nscd/socket"}, true},
		"one without an end":   {family(unix.AF_UNIX, []byte("/run/a")...), address{family: unix.AF_UNIX, path: "/run/a"}, true},
		"an abstract one":      {family(unix.AF_UNIX, []byte("\x00/run/a")...), address{family: unix.AF_UNIX}, true},
		"one without a name":   {family(unix.AF_UNIX), address{family: unix.AF_UNIX}, true},
		"no family":            {family(unix.AF_UNSPEC), address{}, true},
		"what is no network":   {family(unix.AF_NETLINK, 1, 2, 3), address{family: unix.AF_NETLINK}, true},
	} {
		if got, ok := parseAddress(c.in); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, c.want, c.ok)
		}
	}
}

func TestIsHere(t *testing.T) {
	for ip, want := range map[string]bool{
		"127.0.0.1": true, "127.255.0.9": true, "0.0.0.0": true, "::1": true, "::": true, "::ffff:127.0.0.1": true, "::ffff:0.0.0.0": true,
		"192.0.2.1": false, "10.0.0.1": false, "::ffff:10.0.0.1": false, "fe80::1": false, "2001:db8::1": false, "198.18.0.1": false,
	} {
		if got := isHere(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
}

// FuzzAddress requires that nothing is read that is not there, and that what was read is
// written as it was, as far as it says anything.
func FuzzAddress(f *testing.F) {
	f.Add(family(unix.AF_INET, 1, 187, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(family(unix.AF_INET, 0))
	f.Add(appendAddress(nil, netip.MustParseAddrPort("[fe80::1%7]:53")))
	f.Add(appendAddress(nil, netip.MustParseAddrPort("[::ffff:192.0.2.7]:80"))[:24])
	f.Add(family(unix.AF_UNIX, []byte("/run/nscd/socket\x00")...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAddress(b)
		longer, stillOK := parseAddress(append(bytes.Clone(b), make([]byte, 40)...))
		if ok && a.family == unix.AF_INET && (!stillOK || longer.to != a.to) {
			t.Fatalf("%v becomes %v by what follows it", a.to, longer.to)
		}
		if !ok {
			return
		}
		if a.to.IsValid() != (a.family == unix.AF_INET || a.family == unix.AF_INET6) {
			t.Fatalf("%+v of the family %d", a.to, a.family)
		}
		if a.to.IsValid() {
			if again, ok := parseAddress(appendAddress(nil, a.to)); !ok || again.to != a.to {
				t.Fatalf("%v becomes %v", a.to, again.to)
			}
		}
	})
}
