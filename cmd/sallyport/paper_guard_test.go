//go:build linux

package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
)

// paperSpelling is a host text of 4a that some resolver, kernel or careless
// comparison takes for an address that is guarded.
type paperSpelling struct{ what, host string }

// paperGuardedIPs are the addresses themselves: they go as DSTIP, and again as
// host text.
func paperGuardedIPs() []string {
	return []string{
		"127.0.0.1", "127.0.0.2", "127.255.255.254", // loopback
		"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", // private
		"169.254.0.1", "169.254.169.254", // link-local; metadata of most clouds
		"100.64.0.1", "100.100.100.200", // behind a carrier's NAT; metadata of another cloud
		"192.0.0.192",                                                     // metadata of yet another
		"224.0.0.1", "239.255.255.255", "255.255.255.255", "198.51.100.1", // multicast, broadcast, the gateway itself
		"240.0.0.1", "0.1.2.3", // nobody's
	}
}

func paperGuardedIPv6() []paperSpelling {
	return []paperSpelling{
		{"loopback", "::1"},
		{"loopback in full", "0:0:0:0:0:0:0:1"},
		{"loopback in brackets", "[::1]"},
		{"loopback mapped", "::ffff:127.0.0.1"},
		{"loopback mapped, hex", "::ffff:7f00:1"},
		{"loopback mapped, capitals", "::FFFF:7F00:0001"},
		{"loopback mapped, in brackets", "[::ffff:127.0.0.1]"},
		{"loopback as IPv4-compatible", "::127.0.0.1"},
		{"loopback through NAT64", "64:ff9b::7f00:1"},
		{"loopback through 6to4", "2002:7f00:1::"},
		{"private mapped", "::ffff:10.0.0.1"},
		{"private through NAT64", "64:ff9b::10.0.0.1"},
		{"metadata mapped", "::ffff:169.254.169.254"},
		{"metadata of a cloud in IPv6", "fd00:ec2::254"},
		{"private", "fc00::1"},
		{"link-local", "fe80::1"},
		{"link-local with a zone", "fe80::1%lo"},
		{"loopback with a zone", "::1%lo"},
		{"loopback with a zone, escaped", "::1%25lo"},
		{"mapped with a zone", "::ffff:127.0.0.1%lo"},
		{"site-local", "fec0::1"},
		{"multicast", "ff02::1"},
		{"unspecified", "::"},
		{"unspecified mapped", "::ffff:0.0.0.0"},
	}
}

func paperGuardedTexts() []paperSpelling {
	return []paperSpelling{
		{"trailing dot", "127.0.0.1."},
		{"two parts", "127.1"},
		{"three parts", "127.0.1"},
		{"decimal", "2130706433"},
		{"hex", "0x7f000001"},
		{"hex in capitals", "0X7F000001"},
		{"octal", "017700000001"},
		{"parts in hex", "0x7f.0x0.0x0.0x1"},
		{"parts in octal", "0177.0.0.01"},
		{"zeros in front", "127.000.000.001"},
		{"two parts in hex", "0x7f.1"},
		{"decimal with a dot", "2130706433."},
		{"one too large", "4294967297"},
		{"zero", "0"},
		{"zero in hex", "0x0"},
		{"private in two parts", "10.1"},
		{"private in three parts", "192.168.257"},
		{"metadata in decimal", "2852039166"},
		{"metadata in hex", "0xa9fea9fe"},
		{"metadata in octal", "0251.0376.0251.0376"},
		{"a name for loopback", "localhost"},
		{"a name for loopback in capitals", "LOCALHOST"},
		{"a name for loopback with a dot", "localhost."},
		{"a name for IPv6 loopback", "six.test"},
		{"a name for metadata", "metadata.test"},
		{"a name for a private address", "private.test"},
		{"a name for the gateway", "gateway.test"},
		{"a name for a mapped address", "mapped.test"},
		{"space in front", " 127.0.0.1"},
		{"space behind", "127.0.0.1 "},
		{"newline behind", "127.0.0.1\n"},
		{"userinfo", "good.test@127.0.0.1"},
		{"fragment", "127.0.0.1#good.test"},
		{"percent", "%31%32%37.0.0.1"},
		{"wide digits", "１２７.0.0.1"},
		{"ideographic dots", "127。0。0。1"},
		{"circled digits", "①②⑦.0.0.1"},
	}
}

const paperGuardHosts = `
127.0.0.1 localhost
::1 six.test
169.254.169.254 metadata.test
10.0.0.1 private.test
198.51.100.1 gateway.test
::ffff:127.0.0.1 mapped.test
93.184.216.34 good.test
2606:2800:220::1946 good6.test
`

// Nothing but the Internet is allowed, and every address answers: who is
// connected to although it is guarded is caught.
func TestPaperGuard(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	trap := &paperTrap{hit: map[string]int{}}
	trap.set(t, w.gateway, 80)
	trap.set(t, w.outside, 80)
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) { return nil, false })
	s := startPaper(t, paperSetup{net: w.gateway, hosts: paperGuardHosts, dns: "127.0.0.53", settings: `
log: {format: json}
timeouts: {connect: 2s}
rules: {allow: the internet, from: loopback, bind: {primary: optional}}
`})
	denied := func(name string, request []byte) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := s.ask(t, request)
			client.refused(paperRejected)
			reason := s.session(t, client).Reason
			if !slices.Contains([]string{"denied", "bad-request", "no-name"}, reason) {
				t.Errorf("the log's reason is %q, want that nothing was tried", reason)
			}
		})
	}
	for _, ip := range paperGuardedIPs() {
		if ip != "0.0.0.0" {
			denied("DSTIP "+ip, paperAsk(paperCONNECT, paperAt(ip, 80), ""))
		}
		denied("host "+ip, paperAskName(paperCONNECT, ip, 80, ""))
	}
	for _, c := range slices.Concat(paperGuardedIPv6(), paperGuardedTexts()) {
		denied(c.what+" "+c.host, paperAskName(paperCONNECT, c.host, 80, ""))
	}
	denied("BIND for a private peer", paperAsk(paperBIND, paperAt("10.0.0.1", 21), ""))
	denied("BIND for loopback", paperAskName(paperBIND, "127.1", 21, ""))
	for _, host := range []string{paperPublic, paperPublic6, "good.test", "good6.test"} {
		t.Run("allowed: "+host, func(t *testing.T) {
			t.Parallel()
			s.ask(t, paperAskName(paperCONNECT, host, 80, "")).granted()
		})
	}
	t.Cleanup(func() {
		trap.only(t, paperPublic, paperPublic6)
		if trap.hits(paperPublic) == 0 || trap.hits(paperPublic6) == 0 {
			t.Error("the trap catches nothing")
		}
	})
}

// What a rule names is open, and nothing beside it.
func TestPaperGuardNamed(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	trap := &paperTrap{hit: map[string]int{}}
	trap.set(t, w.gateway, 80)
	trap.set(t, w.outside, 80)
	s := startPaper(t, paperSetup{net: w.gateway, settings: `
log: {format: json}
rules:
  - {allow: metadata, from: 127.0.0.1, to: 169.254.169.254}
  - {allow: private, from: 127.0.0.2, to: private}
  - {allow: loopback, from: 127.0.0.3, to: loopback}
  - {allow: one loopback, from: 127.0.0.4, to: [internet, 127.0.0.9]}
  - {allow: all, from: 127.0.0.5, to: any}
  - {allow: by prefix, from: 127.0.0.6, to: 0.0.0.0/0}
`})
	for _, c := range []struct {
		from, to string
		code     byte
	}{
		{"127.0.0.1", "169.254.169.254", paperGranted},
		{"127.0.0.1", "::ffff:169.254.169.254", paperGranted},
		{"127.0.0.1", "169.254.169.253", paperRejected},
		{"127.0.0.1", paperPublic, paperRejected},
		{"127.0.0.2", "10.1.2.3", paperGranted},
		{"127.0.0.2", "172.31.0.1", paperGranted},
		{"127.0.0.2", "192.168.7.7", paperGranted},
		{"127.0.0.2", "fd00::1", paperGranted},
		{"127.0.0.2", "172.32.0.1", paperRejected},
		{"127.0.0.2", "127.0.0.1", paperRejected},
		{"127.0.0.2", "169.254.169.254", paperRejected},
		{"127.0.0.3", "127.0.0.1", paperGranted},
		{"127.0.0.3", "127.7.7.7", paperGranted},
		{"127.0.0.3", "::1", paperGranted},
		{"127.0.0.3", "10.1.2.3", paperRejected},
		{"127.0.0.4", "127.0.0.9", paperGranted},
		{"127.0.0.4", paperPublic, paperGranted},
		{"127.0.0.4", "127.0.0.8", paperRejected},
		{"127.0.0.5", "127.0.0.1", paperGranted},
		{"127.0.0.5", "10.1.2.3", paperGranted},
		{"127.0.0.5", paperPublic6, paperGranted},
		{"127.0.0.6", paperPublic, paperGranted},
		{"127.0.0.6", paperPublic6, paperRejected},
	} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, c.from)
			client.sends(paperAskName(paperCONNECT, c.to, 80, ""))
			client.answered(c.code)
		})
	}
}

// A name server that changes its mind: what was judged is what is dialled.
func TestPaperGuardRebinding(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	trap := &paperTrap{hit: map[string]int{}}
	trap.set(t, w.gateway, 80)
	trap.set(t, w.outside, 80)
	good, bad := netip.MustParseAddr(paperPublic), netip.MustParseAddr("127.0.0.1")
	var asked atomic.Int64
	paperDNS(t, w.gateway, "127.0.0.53", func(name string) ([]netip.Addr, bool) {
		switch name {
		case "alternates.test":
			if asked.Add(1)/2%2 == 0 { // A and AAAA go out together
				return []netip.Addr{good}, true
			}
			return []netip.Addr{bad, netip.MustParseAddr("::1")}, true
		case "mixed.test":
			return []netip.Addr{bad, good, netip.MustParseAddr("10.0.0.1")}, true
		case "mapped.test":
			return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, true
		}
		return nil, false
	})
	s := startPaper(t, paperSetup{net: w.gateway, dns: "127.0.0.53", settings: `
log: {format: json}
resolver: {cache: 0s}
rules: {allow: the internet, from: loopback}
`})
	try := func(t *testing.T, host string, times int) (granted int) {
		t.Helper()
		for range times {
			client := s.ask(t, paperAskName(paperCONNECT, host, 80, ""))
			code, _ := client.replied()
			switch code {
			case paperGranted:
				granted++
			case paperRejected:
			default:
				t.Errorf("reply %d", code)
			}
			client.leaves()
		}
		return granted
	}
	t.Run("1,000 tries at a name that alternates", func(t *testing.T) {
		if granted := try(t, "alternates.test", 1000); granted == 0 || granted == 1000 {
			t.Errorf("%d of 1000 were granted: the name server does not alternate", granted)
		}
		trap.only(t, paperPublic)
	})
	t.Run("a name with guarded addresses among others", func(t *testing.T) {
		try(t, "mixed.test", 50)
		trap.only(t, paperPublic)
	})
	t.Run("a name with a mapped address", func(t *testing.T) {
		if granted := try(t, "mapped.test", 5); granted > 0 {
			t.Error("granted")
		}
		trap.only(t, paperPublic)
	})
}

type paperOwn struct {
	host string
	port uint16
}

// paperOwnSpellings are the server's listeners in TestPaperGuardLoops.
func paperOwnSpellings() []paperOwn {
	return []paperOwn{
		{"127.0.0.1", 1080},
		{"127.0.0.77", 1080},
		{"198.51.100.1", 1080},
		{"localhost", 1080},
		{"LOCALHOST.", 1080},
		{"127.1", 1080},
		{"2130706433", 1080},
		{"0x7f000001", 1080},
		{"::ffff:127.0.0.1", 1080},
		{"::ffff:198.51.100.1", 1080},
		{"127.0.0.9", 1081},
		{"::1", 1082},
	}
}

// A proxy that connects to itself connects to itself again.
func TestPaperGuardLoops(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	s := startPaper(t, paperSetup{net: w.gateway, listen: "-", settings: `
log: {format: json}
listeners:
  - {name: wide, listen: "0.0.0.0:1080"}
  - {name: narrow, listen: "127.0.0.9:1081"}
  - {name: six, listen: "[::1]:1082"}
rules: {allow: everything, from: [loopback, 198.51.100.0/24], to: any}
open_to_the_world: true
`})
	entry := paperAt("127.0.0.1", 1080)
	for _, own := range paperOwnSpellings() {
		t.Run(fmt.Sprintf("%s port %d", own.host, own.port), func(t *testing.T) {
			t.Parallel()
			client := w.gateway.dial(t, "127.0.0.1", entry)
			client.sends(paperAskName(paperCONNECT, own.host, own.port, ""))
			client.refused(paperRejected)
			s.ended(t, client, "loop")
		})
	}
	t.Run("DSTIP 127.0.0.1 port 1080", func(t *testing.T) {
		t.Parallel()
		client := w.gateway.dial(t, "127.0.0.1", entry)
		client.sends(paperAsk(paperCONNECT, entry, ""))
		client.refused(paperRejected)
		s.ended(t, client, "loop")
	})
	t.Run("allowed: the same address, a port that is not ours", func(t *testing.T) {
		t.Parallel()
		echo := paperEcho(t, w.gateway, "127.0.0.1:0")
		client := w.gateway.dial(t, "127.0.0.1", entry)
		client.sends(paperAsk(paperCONNECT, echo, ""))
		client.granted()
		client.echoes()
	})
	t.Run("allowed: another address, a port like ours", func(t *testing.T) {
		t.Parallel()
		echo := paperEcho(t, w.gateway, "127.0.0.10:1081")
		client := w.gateway.dial(t, "127.0.0.1", entry)
		client.sends(paperAsk(paperCONNECT, echo, ""))
		client.granted()
		client.echoes()
	})
}
