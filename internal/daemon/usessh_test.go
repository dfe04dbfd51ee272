//go:build unix

package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/internal/proxytest"
)

const sshUse = `
listeners:
  - {name: lan, listen: 127.0.0.1:0, protocols: [socks5, ssh]}
  - {name: mapped, listen: 127.0.0.1:0, map: %q}
  - {name: packets, listen: udp/127.0.0.1:0, map: {to: %q, idle: 1s}}
admin: off
ssh: {host_key: key}
users: {file: users}
virtual_ports: [{name: intranet, listen: 127.0.0.1:0, users: bob}, {name: dns, listen: udp/127.0.0.1:0, users: bob}]
rules:
  - {allow: keys, users: bob, proof: key, to: loopback, bind: {any_peer: true}}
  - {allow: offers, commands: bind, proof: key, to: [intranet, dns]}
  - {allow: visitors, from: loopback, to: [intranet, dns]}
  - {allow: mappings, protocols: map, to: loopback}
ledger: {store: sqlite:used.db, flush: 1m}
`

// TestUseOfPorts: what goes over SSH, to virtual ports and by mappings is in the ledger to
// the byte, with whose it was, by which rule and where it came in.
func TestUseOfPorts(t *testing.T) {
	echo, packets := proxytest.Echo(t, "127.0.0.1"), echoOfDatagrams(t)
	s := serveIn(t, fmt.Sprintf(sshUse, echo, packets), "bob:secret")
	sign, err := openHostKey(filepath.Join(t.TempDir(), "mine"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (Users{File: s.dir + "/users"}).AddKey(t.Context(), "bob", string(ssh.MarshalAuthorizedKey(sign.PublicKey()))); err != nil {
		t.Fatal(err)
	}
	var c *ssh.Client
	proxytest.Eventually(t, "bob signs in", func() bool {
		c, err = s.signsInBy("bob", sign)
		return err == nil
	})
	defer c.Close()
	publishes(t, &client.Publisher{
		Server: s.at("lan"), User: "bob", Auth: []ssh.AuthMethod{ssh.PublicKeys(sign)}, HostKey: ssh.InsecureIgnoreHostKey(),
		Services: []client.Service{{Name: "intranet", Port: 80, Target: echo.String()}, {Name: "dns", Port: 53, Target: packets, UDP: true}},
	})
	proxytest.Eventually(t, "both ports are offered", func() bool { return len(s.server.Sessions()) == 2 })
	usesAll(t, s, c, echo)
	s.end()

	for by, want := range map[string]string{
		"user": " 3463 5, bob 120000 5", "rule": "keys 120000 3, mappings 13 2, offers 0 2, visitors 3450 3",
		"listener": "dns 50 1, intranet 400 1, lan 123000 6, mapped 6 1, packets 7 1",
	} {
		if got := usedBy(t, s.file(), by); got != want {
			t.Errorf("by %s: %q, want %q", by, got, want)
		}
	}
}

// usesAll moves bytes in each way that there is.
func usesAll(t *testing.T, s *served, c *ssh.Client, echo netip.AddrPort) {
	t.Helper()
	dial := func(network, address string) net.Conn {
		t.Helper()
		far, err := (&net.Dialer{}).DialContext(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		return far
	}
	proxy, err := client.New("socks5h://" + s.at("lan"))
	if err != nil {
		t.Fatal(err)
	}
	direct, err := c.Dial("tcp", echo.String())
	if err != nil {
		t.Fatal(err)
	}
	talks(t, direct, 100_000)
	own, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go echoes(own)
	talks(t, dial("tcp", own.Addr().String()), 20_000)
	named, err := proxy.DialContext(t.Context(), "tcp", "intranet:80")
	if err != nil {
		t.Fatal(err)
	}
	talks(t, named, 3_000)
	talks(t, dial("tcp", s.at("intranet")), 400)
	talks(t, dial("udp", strings.TrimPrefix(s.at("dns"), "udp/")), 50)
	talks(t, dial("tcp", s.at("mapped")), 6)
	talks(t, dial("udp", strings.TrimPrefix(s.at("packets"), "udp/")), 7)
	own.Close()
}

// usedBy returns what each has moved, which must be as much both ways, and how many
// sessions there were.
func usedBy(t *testing.T, file, by string) string {
	t.Helper()
	r, err := Usage{File: file}.Read(context.Background(), UsageQuery{By: by})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range r.Lines {
		if l.Up != l.Down {
			t.Errorf("%s: %d up, %d down", l.Name, l.Up, l.Down)
		}
		if l.Sessions > 0 { // clients of ssh may have come before their key was known
			got = append(got, fmt.Sprint(l.Name, " ", l.Up, " ", l.Sessions))
		}
	}
	slices.Sort(got)
	return strings.Join(got, ", ")
}

// talks has so many bytes echoed, and ends the session.
func talks(t *testing.T, c net.Conn, size int) {
	t.Helper()
	defer c.Close()
	said := strings.Repeat("x", size)
	go func() { _, _ = io.WriteString(c, said) }() // what went wrong shows in what comes back
	proxytest.Hear(t, c, said)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other end sees whether it came
		proxytest.Ends(t, c)
	}
}

// echoes serves an echo at a listener until that is closed.
func echoes(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c) // it ends when the visitor does
		c.Close()
	}
}

// echoOfDatagrams sends each back until the test ends.
func echoOfDatagrams(t *testing.T) (address string) {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from) // the test misses it
		}
	}()
	return netip.MustParseAddrPort(c.LocalAddr().String()).String()
}

// publishes runs a publisher until the test ends.
func publishes(t *testing.T, p *client.Publisher) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.Run(ctx); ctx.Err() == nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}
