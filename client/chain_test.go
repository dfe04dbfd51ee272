package client_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// On one connection each proxy of a chain is asked for the next, in the order
// of the URL, and the last for the target. None but the first is dialled.
func TestChain(t *testing.T) {
	p := play(t, func(t *testing.T, c net.Conn) {
		if r := readRequest(t, c); r.Host != "b.example" || r.Port != 1080 || r.UserID != "alice" {
			t.Errorf("the first proxy is asked for %+v", r)
		}
		if _, err := c.Write(granted()); err != nil {
			t.Error(err)
		}
		script := append(login5(1, 0),
			turn{request5(t, socks.Connect, "c.example:3128"), reply5(t, 0, "0.0.0.0:0")},
			turn{connectTo("www.example.com:443", "Proxy-Authorization: Basic YTpiLGM=\r\n"), []byte("HTTP/1.1 200 OK\r\n\r\n220 ready")})
		takeTurns(t, c, script)
		waitForClose(t, c)
	})
	const chain = "socks4a://alice@a.example, socks5h://alice:secret@b.example,http://a:b,c@c.example:3128"
	conn, err := dialerFor(t, chain, p).Dial("tcp", "www.example.com:443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p.address != "a.example:1080" || conn.RemoteAddr().String() != "www.example.com:443" {
		t.Errorf("dialled %s to reach %v", p.address, conn.RemoteAddr())
	}
	got := make([]byte, 9)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "220 ready" {
		t.Errorf("the target's first bytes are %q, %v", got, err)
	}
}

// The error tells which of the proxies it was, and no other address of the
// target is tried.
func TestChainRefused(t *testing.T) {
	resolver := client.WithResolver(names{"www.example.com": ips("192.0.2.1", "192.0.2.2")})
	p := play(t, func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		if _, err := c.Write(reply(socks.Rejected4, "0.0.0.0:0")); err != nil {
			t.Error(err)
		}
		waitForClose(t, c)
	})
	_, err := dialerFor(t, "socks4a://a,socks5://alice:secret@b", p, resolver).Dial("tcp", "www.example.com:80")
	refusal, ok := errors.AsType[*client.ReplyError](err)
	if !ok || refusal.Proxy != "socks4a://a:1080" || refusal.Target != "b:1080" {
		t.Errorf("got %v", err)
	}
	const text = "socks5://b:1080: connect 192.0.2.1:80: reaching the proxy: socks4a://a:1080: connect b:1080: reply 91, rejected or failed"
	if err == nil || err.Error() != text {
		t.Errorf("got  %v\nwant %s", err, text)
	}
}

func TestChainWithTLS(t *testing.T) {
	server := startServer(reverse)
	defer server.Close()
	first := startProxy(nil)
	defer first.Close()
	addr, trusting := startTLSProxy(t, "")
	d, err := client.New("socks4://"+first.Addr()+",https://"+addr, client.WithTLSConfig(trusting))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkReverses(t, conn)
}

// BIND by the last proxy, reached through one that only connects.
func TestBindThroughChain(t *testing.T) {
	p := play(t, func(t *testing.T, c net.Conn) {
		takeTurns(t, c, []turn{
			{connectTo("gw.example:1080", ""), []byte("HTTP/1.1 200 OK\r\n\r\n")},
			hello5,
			{request5(t, socks.Bind, "192.0.2.7:21"), reply5(t, 0, "0.0.0.0:2000")},
		})
		if _, err := c.Write(reply5(t, 0, "192.0.2.7:20")); err != nil {
			t.Error(err)
		}
		waitForClose(t, c)
	})
	ln := listen(t, dialerFor(t, "http://a,socks5h://gw.example", p))
	if ln.Addr().String() != "gw.example:2000" {
		t.Errorf("Addr %v", ln.Addr())
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != "192.0.2.7:20" {
		t.Errorf("RemoteAddr %v", conn.RemoteAddr())
	}
}

// A fault in any part of a chain is found.
func TestChainIsReadWhole(t *testing.T) {
	for _, chain := range []string{"socks5://a,socks5://", "socks5://,socks5://a", "socks5://a,socks6://b", "http://a,http://b/path"} {
		if d, err := client.New(chain); d != nil || err == nil || !strings.HasPrefix(err.Error(), "client: the proxy URL") {
			t.Errorf("%s: %v", chain, err)
		}
	}
}
