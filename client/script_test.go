package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// A script plays the proxy on one connection, which is closed when it returns.
// It runs beside the test, so it may report errors but not stop the test.
type script func(t *testing.T, c net.Conn)

// scripted is a forward dialer whose connections end in scripts, one after the
// other. A connection more than there are scripts fails the test, and so does a
// script that was never played.
type scripted struct {
	t       *testing.T
	scripts []script

	mu      sync.Mutex
	played  int
	wg      sync.WaitGroup
	address string                  // the last that was dialled
	wrap    func(net.Conn) net.Conn // set before use; may be nil
}

func play(t *testing.T, scripts ...script) *scripted {
	t.Helper()
	p := &scripted{t: t, scripts: scripts}
	t.Cleanup(func() {
		p.wg.Wait()
		if p.played != len(p.scripts) {
			t.Errorf("%d connections to the proxy, want %d", p.played, len(p.scripts))
		}
	})
	return p
}

func (p *scripted) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address = address
	if network != "tcp" {
		p.t.Errorf("the proxy was dialled over %q", network)
	}
	if p.played == len(p.scripts) {
		p.t.Errorf("connection %d to the proxy, and no script for it", p.played+1)
		return nil, errors.New("no script")
	}
	run := p.scripts[p.played]
	p.played++
	here, there := net.Pipe()
	p.wg.Go(func() {
		defer there.Close()
		run(p.t, there)
	})
	if p.wrap != nil {
		return p.wrap(here), nil
	}
	return here, nil
}

// readRequest takes the one request that arrives, which must come in one write.
func readRequest(t *testing.T, c net.Conn) socks.Request4 {
	t.Helper()
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		t.Errorf("reading the request: %v", err)
		return socks.Request4{}
	}
	r, taken, err := socks.ParseRequest4(buf[:n], socks.DefaultUserID)
	if err != nil || taken != n {
		t.Errorf("request %q: took %d of %d bytes, %v", buf[:n], taken, n, err)
	}
	return r
}

// answer reads a request, writes the chunks, and waits until the client closes.
func answer(chunks ...[]byte) script {
	return func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		for _, chunk := range chunks {
			if _, err := c.Write(chunk); err != nil {
				t.Errorf("writing %x: %v", chunk, err)
			}
		}
		waitForClose(t, c)
	}
}

// cut reads a request, writes the bytes and closes.
func cut(b []byte) script {
	return func(t *testing.T, c net.Conn) {
		readRequest(t, c)
		if _, err := c.Write(b); err != nil {
			t.Errorf("writing %x: %v", b, err)
		}
	}
}

// waitForClose blocks until the client closes its end.
func waitForClose(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
		t.Errorf("before the client closed: %d bytes, %v", n, err)
	}
}

// reply is a reply's bytes; addr is "ip:port".
func reply(code socks.Code4, addr string) []byte {
	return socks.NewReply4(code, netip.MustParseAddrPort(addr)).Append(nil)
}

func granted() []byte { return reply(socks.Granted4, "192.0.2.200:2000") }

// dialerFor makes a Dialer whose proxy is forward.
func dialerFor(t *testing.T, url string, forward client.ContextDialer, opts ...client.Option) *client.Dialer {
	t.Helper()
	d, err := client.New(url, append(opts, client.WithForward(forward))...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// names is a resolver.
type names map[string][]netip.Addr

var errNoSuchName = errors.New("no such name")

func (n names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	all, ok := n[host]
	if !ok {
		return nil, errNoSuchName
	}
	var found []netip.Addr
	for _, ip := range all {
		if network == "ip" || ip.Unmap().Is4() == (network == "ip4") {
			found = append(found, ip)
		}
	}
	return found, nil
}

func ips(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}
