package admin

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzTongue: whatever a browser says that it reads, it gets one of the languages.
func FuzzTongue(f *testing.F) {
	for _, seed := range []string{"", "ru", "en-US,en;q=0.9,ru;q=0.8", "ru;q=", "*;q=1", ";;,=", "ru;q=NaN", "ru;q=1e999,en"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accepted string) {
		if got := tongueOf(accepted); !slices.Contains(tongues(), got) {
			t.Errorf("%q: %v", accepted, got)
		}
		if !strings.Contains(strings.ToLower(accepted), "ru") && tongueOf(accepted) != &english {
			t.Errorf("%q: Russian, which was not asked for", accepted)
		}
	})
}

// FuzzHost: no name is known but those that are meant.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"localhost", "127.0.0.1:1088", "[::1]:80", "gw.example.", "evil.example", "[fe80::1%25eth0]", "a:b:c", "localhost:", "[gw.example]:1"} {
		f.Add(seed)
	}
	g := &guard{panel: &Panel{Hosts: []string{"gw.example"}}}
	f.Fuzz(func(t *testing.T, host string) {
		if !g.knows(host) {
			return
		}
		name := host
		if alone, _, err := net.SplitHostPort(host); err == nil {
			name = alone
		}
		name = strings.ToLower(strings.Trim(strings.TrimSuffix(name, "."), "[]."))
		if _, err := netip.ParseAddr(name); err != nil && name != "localhost" && name != "gw.example" {
			t.Errorf("%q is known", host)
		}
	})
}
