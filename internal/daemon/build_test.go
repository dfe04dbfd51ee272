package daemon

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/config"
)

// TestPrefixes: the words that can stand for load balancers are the networks
// that rules mean by them.
func TestPrefixes(t *testing.T) {
	lan := netip.MustParsePrefix("198.51.100.0/24")
	all := prefixes([]config.Network{{Word: "loopback"}, {Prefix: lan}, {Word: "private"}})
	for text, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.255": true, "::1": true, "198.51.100.7": true,
		"10.1.2.3": true, "172.31.255.255": true, "192.168.0.1": true, "fd00::1": true,
		"198.51.101.0": false, "172.32.0.0": false, "::2": false, "fe80::1": false, "203.0.113.1": false,
	} {
		a := netip.MustParseAddr(text)
		if got := slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) }); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
