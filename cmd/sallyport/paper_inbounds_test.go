//go:build linux

package main_test

// What holds for a CONNECT of every protocol alike, the tunnels over TLS among
// them.

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// paperInbound is a protocol that a client can be connected by.
type paperInbound struct {
	name    string
	overTLS bool
	opening func(to netip.AddrPort) []byte // all in one piece
	answer  string                         // what it begins with
	size    int                            // of the answer; 0: up to an empty line
}

func paperInbounds() []paperInbound {
	connect := func(to netip.AddrPort) []byte {
		return fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	}
	four := func(to netip.AddrPort) []byte { return paperAsk(paperCONNECT, to, "bob") }
	five := func(to netip.AddrPort) []byte { return paper5Open(paper5Ask(paperCONNECT, to)) }
	return []paperInbound{
		{"SOCKS 4", false, four, "\x00\x5a", 8},
		{"SOCKS 4a", false, func(to netip.AddrPort) []byte {
			return paperAskName(paperCONNECT, to.Addr().String(), to.Port(), "bob")
		}, "\x00\x5a", 8},
		{"SOCKS 5", false, five, paper5ChoseNone + "\x05\x00\x00\x01", 12},
		{"HTTP", false, connect, "HTTP/1.1 200 ", 0},
		{"SOCKS 4 over TLS", true, four, "\x00\x5a", 8},
		{"SOCKS 5 over TLS", true, five, paper5ChoseNone + "\x05\x00\x00\x01", 12},
		{"HTTPS", true, connect, "HTTP/1.1 200 ", 0},
	}
}

// startPaperTLS runs the program with TLS on its port too.
func startPaperTLS(t *testing.T) *paperServer {
	t.Helper()
	certificate := writeFile(t, "proxy.pem", newCertificate(t))
	return startPaper(t, paperSetup{settings: fmt.Sprintf(
		"listeners: {name: lan, listen: \"127.0.0.1:0\", tls: {certificate: %q, key: %[1]q}}\n", certificate) + paperOpen})
}

// paperTunnel is a client that was connected: its connection, and what it
// speaks through, which over TLS is another thing.
type paperTunnel struct {
	*paperConn
	through interface {
		io.ReadWriter
		CloseWrite() error
	}
}

// join connects a client with a target of its own.
func (p paperInbound) join(t *testing.T, s *paperServer) (client paperTunnel, far *paperConn) {
	t.Helper()
	x := paperListen(t, nil, "127.0.0.1:0")
	c := s.dial(t, "")
	client = paperTunnel{c, c}
	if p.overTLS {
		client.through = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := client.through.Write(p.opening(x.addr)); err != nil {
		t.Fatal(err)
	}
	p.granted(t, client.through)
	return client, x.accept(t)
}

// granted reads the answer, and no byte more.
func (p paperInbound) granted(t *testing.T, from io.Reader) {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); len(got) != p.size || p.size == 0; got = append(got, b...) {
		if p.size == 0 && bytes.HasSuffix(got, []byte("\r\n\r\n")) {
			break
		}
		if _, err := io.ReadFull(from, b); err != nil {
			t.Fatalf("the answer ends after %q: %v", got, err)
		}
	}
	if !strings.HasPrefix(string(got), p.answer) {
		t.Fatalf("the answer is %q, want one that begins with %q", got, p.answer)
	}
}

// wasReset checks that nothing follows but an RST.
func (c paperTunnel) wasReset(t *testing.T) {
	t.Helper()
	if b, err := io.ReadAll(c.through); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		t.Fatalf("read %q, %v; want a reset", paperCut(b), err)
	}
}

// TestPaperEveryReset: a reset goes through as a reset, whichever protocol made
// the tunnel, and also behind a FIN of the other side.
func TestPaperEveryReset(t *testing.T) {
	t.Parallel()
	s := startPaperTLS(t)
	for _, p := range paperInbounds() {
		t.Run(p.name+": the client's reset", func(t *testing.T) {
			t.Parallel()
			client, far := p.join(t, s)
			client.resets()
			far.isReset()
			s.ended(t, client.paperConn, "client-reset")
		})
		t.Run(p.name+": the target's reset", func(t *testing.T) {
			t.Parallel()
			client, far := p.join(t, s)
			far.resets()
			client.wasReset(t)
			s.ended(t, client.paperConn, "target-reset")
		})
		t.Run(p.name+": the target's reset behind the client's FIN", func(t *testing.T) {
			t.Parallel()
			client, far := p.join(t, s)
			if err := client.through.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			far.ends()
			far.resets()
			client.wasReset(t)
			s.ended(t, client.paperConn, "target-reset")
		})
		t.Run(p.name+": the client's reset behind the target's FIN", func(t *testing.T) {
			t.Parallel()
			client, far := p.join(t, s)
			far.stops()
			if b, err := io.ReadAll(client.through); err != nil || len(b) > 0 {
				t.Fatalf("read %q, %v; want the end", paperCut(b), err)
			}
			client.resets()
			far.isReset()
			s.ended(t, client.paperConn, "client-reset")
		})
	}
}

// TestPaperEveryCut: the opening of every protocol may come in two pieces, cut
// at any byte, and what follows it is the target's.
func TestPaperEveryCut(t *testing.T) {
	t.Parallel()
	s := startPaperTLS(t)
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, p := range paperInbounds() {
		if p.overTLS {
			continue // its bytes are not the client's to cut
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			opening := p.opening(echo)
			for i := 1; i < len(opening); i++ {
				client := s.dial(t, "")
				client.sends(opening[:i])
				client.sends(opening[i:], []byte("behind"))
				p.granted(t, client)
				client.hears("behind")
				client.leaves()
			}
		})
	}
}
