//go:build linux

package main_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
)

// Nothing but the Internet is allowed, and every address answers: who is
// connected to although it is guarded is caught. SOCKS 5 has three ways to say
// each address.
func TestPaper5Guard(t *testing.T) {
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
			client := s.ask5(t, request)
			client.refused5(paper5NotAllowed, paper5Failure, paper5NoHost)
			reason := s.session(t, client).Reason
			if !slices.Contains([]string{"denied", "bad-request", "no-name"}, reason) {
				t.Errorf("the log's reason is %q, want that nothing was tried", reason)
			}
		})
	}
	for _, ip := range paperGuardedIPs() {
		denied("IPv4 "+ip, paper5Ask(paperCONNECT, paperAt(ip, 80)))
		denied("mapped "+ip, paper5Ask(paperCONNECT, paper5Mapped(paperAt(ip, 80))))
		denied("name "+ip, paper5AskName(paperCONNECT, ip, 80))
	}
	for _, c := range paperGuardedIPv6() {
		if ip, err := netip.ParseAddr(c.host); err == nil {
			denied("IPv6, "+c.what, paper5Ask(paperCONNECT, netip.AddrPortFrom(ip.WithZone(""), 80)))
		}
		denied("name, "+c.what+" "+c.host, paper5AskName(paperCONNECT, c.host, 80))
	}
	for _, c := range paperGuardedTexts() {
		denied("name, "+c.what+" "+c.host, paper5AskName(paperCONNECT, c.host, 80))
	}
	for _, tail := range []string{"\x00", "\x00.good.test", ".\x00", "%00"} {
		denied(fmt.Sprintf("name 127.0.0.1%q", tail), paper5AskName(paperCONNECT, "127.0.0.1"+tail, 80))
		denied(fmt.Sprintf("name good.test%q127.0.0.1", tail), paper5AskName(paperCONNECT, "good.test"+tail+"127.0.0.1", 80))
	}
	denied("BIND for a private peer", paper5Ask(paperBIND, paperAt("10.0.0.1", 21)))
	denied("BIND for loopback in IPv6", paper5Ask(paperBIND, paperAt("::1", 21)))
	denied("BIND for loopback by name", paper5AskName(paperBIND, "127.1", 21))
	for name, request := range paper5Public() {
		t.Run("allowed: "+name, func(t *testing.T) {
			t.Parallel()
			s.ask5(t, request).granted5()
		})
	}
	t.Cleanup(func() {
		trap.only(t, paperPublic, paperPublic6)
		if trap.hits(paperPublic) == 0 || trap.hits(paperPublic6) == 0 {
			t.Error("the trap catches nothing")
		}
	})
}

// paper5Public are requests for what everybody may reach.
func paper5Public() map[string][]byte {
	return map[string][]byte{
		"IPv4":                       paper5Ask(paperCONNECT, paperAt(paperPublic, 80)),
		"IPv4, mapped":               paper5Ask(paperCONNECT, paper5Mapped(paperAt(paperPublic, 80))),
		"IPv6":                       paper5Ask(paperCONNECT, paperAt(paperPublic6, 80)),
		"a name with an IPv4":        paper5AskName(paperCONNECT, "good.test", 80),
		"a name with an IPv6":        paper5AskName(paperCONNECT, "good6.test", 80),
		"the text of a mapped IPv4":  paper5AskName(paperCONNECT, "::ffff:"+paperPublic, 80),
		"the text of an IPv6":        paper5AskName(paperCONNECT, paperPublic6, 80),
		"the text of a bracketed v6": paper5AskName(paperCONNECT, "["+paperPublic6+"]", 80),
	}
}

// A name server that changes its mind: what was judged is what is dialled.
func TestPaper5GuardRebinding(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	w := newPaperWorld(t)
	trap := &paperTrap{hit: map[string]int{}}
	trap.set(t, w.gateway, 80)
	trap.set(t, w.outside, 80)
	var asked atomic.Int64
	paperDNS(t, w.gateway, "127.0.0.53", func(string) ([]netip.Addr, bool) {
		if asked.Add(1)/2%2 == 0 { // A and AAAA go out together
			return []netip.Addr{netip.MustParseAddr(paperPublic)}, true
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, true
	})
	s := startPaper(t, paperSetup{net: w.gateway, dns: "127.0.0.53", settings: `
log: {format: json}
rules: {allow: the internet, from: loopback}
`})
	granted := 0
	for i := range 500 { // each time another name, should answers be kept
		client := s.ask5(t, paper5AskName(paperCONNECT, fmt.Sprintf("alternates%d.test", i), 80))
		if code, _ := client.replied5(); code == paper5Succeeded {
			granted++
		}
		client.leaves()
	}
	if granted == 0 || granted == 500 {
		t.Errorf("%d of 500 were granted: the name server does not alternate", granted)
	}
	trap.only(t, paperPublic)
}

// A proxy that connects to itself connects to itself again.
func TestPaper5GuardLoops(t *testing.T) {
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
	loops := func(name string, request []byte) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := w.gateway.dial(t, "127.0.0.1", entry)
			client.sends(paper5Open(request))
			client.hears(paper5ChoseNone)
			client.refused5(paper5NotAllowed)
			s.ended(t, client, "loop")
		})
	}
	for _, own := range paperOwnSpellings() {
		loops(fmt.Sprintf("the name %s, port %d", own.host, own.port), paper5AskName(paperCONNECT, own.host, own.port))
		if ip, err := netip.ParseAddr(own.host); err == nil {
			loops(fmt.Sprintf("the address %s, port %d", ip, own.port), paper5Ask(paperCONNECT, netip.AddrPortFrom(ip, own.port)))
		}
	}
}
