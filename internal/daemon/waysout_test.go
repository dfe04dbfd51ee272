//go:build unix

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// echoProxy is a SOCKS 4a proxy that grants everything and is itself every target:
// an echo. It returns its address.
func echoProxy(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { grantEcho(c) })
		}
	})
	t.Cleanup(all.Wait)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// grantEcho serves one client.
func grantEcho(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := io.ReadFull(r, make([]byte, 8)); err != nil {
		return // it was only a check
	}
	for range 2 { // the userid and the name
		if _, err := r.ReadString(0); err != nil {
			return
		}
	}
	if _, err := c.Write([]byte{0, 90, 0, 0, 0, 0, 0, 0}); err == nil {
		_, _ = io.Copy(c, r)
	}
}

// TestReloadKeepsWaysOut: an upstream that is as it was is the same one, with all that
// is known of its proxies, and sessions that were sent on by a name go on until
// their rule is gone.
func TestReloadKeepsWaysOut(t *testing.T) {
	at := echoProxy(t)
	say := func(rules, check string) string {
		return fmt.Sprintf(oneListener+"upstreams: {next: {proxies: 'socks4a://%s', check: %s}}\nrules: [%s]\n", at, check, rules)
	}
	const one = "{allow: one, to: one.example, via: next}"
	const both = one + ", {allow: two, to: two.example, via: next}"
	s := serveIn(t, say(both, "30s"))
	joins := func(host string) *net.TCPConn {
		c := proxytest.Dial(t, s.at("lan"))
		proxytest.Say(t, c, proxytest.Connect4a(host, 80, "bob"))
		proxytest.Granted4(t, c)
		return c
	}
	way := func() any { return s.inForce.rules.ways[wayOut{via: "next"}].Upstream }
	before := way()
	first, second := joins("one.example"), joins("two.example")
	lives(t, "by the first rule", first)

	s.reloads(say("{deny: another, to: 192.0.2.1, ports: 25}, "+both, "30s"))
	if way() != before {
		t.Error("the upstream was made anew")
	}
	lives(t, "after a reload", first)
	lives(t, "after a reload", second)

	s.reloads(say(one, "30s"))
	cut(t, "whose rule is gone", second)
	s.logs("reason=revoked", 1)
	lives(t, "whose rule is not", first)

	s.reloads(say(one, "20s"))
	if way() == before {
		t.Error("the upstream is the old one, with other settings")
	}
	lives(t, "by an upstream that was replaced", first)
	lives(t, "a new one", joins("one.example"))

	s.reloads(oneListener + "rules: {allow: one, to: other.example}\n")
	cut(t, "when there are no upstreams", first)
}
