//go:build linux

package main_test

// SOCKS 5 by hand: what RFC 1928 and RFC 1929 say, written out.

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// The methods and result codes of RFC 1928.
const (
	paper5NoAuth   = 0
	paper5Password = 2

	paper5Succeeded    = 0
	paper5Failure      = 1
	paper5NotAllowed   = 2
	paper5NoNetwork    = 3
	paper5NoHost       = 4
	paper5Refused      = 5
	paper5Expired      = 6
	paper5NoSuchAsk    = 7
	paper5NoSuchFamily = 8
)

// What the server says before its reply.
const (
	paper5ChoseNone    = "\x05\x00"
	paper5ChoseLogin   = "\x05\x02"
	paper5ChoseNothing = "\x05\xff"
	paper5LoggedIn     = "\x01\x00"
	paper5LoginRefused = "\x01\x01"
)

// paper5Greet is a greeting.
func paper5Greet(methods ...byte) []byte {
	return append([]byte{5, byte(len(methods))}, methods...)
}

// paper5Login is a login of RFC 1929.
func paper5Login(name, password string) []byte {
	b := append([]byte{1, byte(len(name))}, name...)
	return append(append(b, byte(len(password))), password...)
}

// paper5Ask is a request, without the greeting.
func paper5Ask(command byte, to netip.AddrPort) []byte {
	b := []byte{5, command, 0, 1}
	if to.Addr().Is6() {
		b[3] = 4
	}
	return binary.BigEndian.AppendUint16(append(b, to.Addr().AsSlice()...), to.Port())
}

// paper5AskName is a request with a name.
func paper5AskName(command byte, host string, port uint16) []byte {
	b := append([]byte{5, command, 0, 3, byte(len(host))}, host...)
	return binary.BigEndian.AppendUint16(b, port)
}

// paper5Open is a greeting without a login and a request, in one piece.
func paper5Open(request []byte) []byte {
	return append(paper5Greet(paper5NoAuth), request...)
}

// greet5 connects to the server from the address, and greets.
func (s *paperServer) greet5(t *testing.T, from string) *paperConn {
	t.Helper()
	c := s.dial(t, from)
	c.sends(paper5Greet(paper5NoAuth))
	c.hears(paper5ChoseNone)
	return c
}

// ask5 greets the server and sends it a request.
func (s *paperServer) ask5(t *testing.T, request []byte) *paperConn {
	t.Helper()
	c := s.greet5(t, "")
	c.sends(request)
	return c
}

// join5 connects a client with the target through the server.
func (s *paperServer) join5(t *testing.T, from string, x *paperTarget) (client, far *paperConn) {
	t.Helper()
	client = s.greet5(t, from)
	client.sends(paper5Ask(paperCONNECT, x.addr))
	client.granted5()
	return client, x.accept(t)
}

// pair5 connects a client with a target of its own.
func (s *paperServer) pair5(t *testing.T) (client, far *paperConn) {
	t.Helper()
	return s.join5(t, "", paperListen(t, s.net, "127.0.0.1:0"))
}

// bind5 asks for a BIND and returns the client and where the peer may connect.
func (s *paperServer) bind5(t *testing.T, from, peer string) (*paperConn, netip.AddrPort) {
	t.Helper()
	client := s.greet5(t, from)
	client.sends(paper5Ask(paperBIND, paperAt(peer, 21)))
	return client, client.granted5()
}

// replied5 reads a reply with an address.
func (c *paperConn) replied5() (code byte, addr netip.AddrPort) {
	c.t.Helper()
	head := c.reads(4)
	if head[0] != 5 || head[2] != 0 {
		c.t.Fatalf("the reply begins with % x", head)
	}
	size, known := map[byte]int{1: 4, 4: 16}[head[3]]
	if !known {
		c.t.Fatalf("the reply's address type is %d", head[3])
	}
	rest := c.reads(size + 2)
	ip, _ := netip.AddrFromSlice(rest[:size])
	return head[1], netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest[size:]))
}

// granted5 reads a reply that must be 0, and returns its address.
func (c *paperConn) granted5() netip.AddrPort {
	c.t.Helper()
	code, addr := c.replied5()
	if code != paper5Succeeded {
		c.t.Fatalf("reply %d, want 0", code)
	}
	return addr
}

// refused5 reads a reply that must have one of the codes, and then the end of
// the stream.
func (c *paperConn) refused5(codes ...byte) {
	c.t.Helper()
	if got, _ := c.replied5(); !slices.Contains(codes, got) {
		c.t.Fatalf("reply %d, want %d", got, codes)
	}
	c.ends()
}

// answered5 is granted or refused.
func (c *paperConn) answered5(code byte) {
	c.t.Helper()
	if code == paper5Succeeded {
		c.granted5()
		return
	}
	c.refused5(code)
}

// paper5Users writes a file with the users' passwords, each "name:password",
// and returns its path.
func paper5Users(t *testing.T, users ...string) string {
	t.Helper()
	var file strings.Builder
	for _, u := range users {
		name, password, _ := strings.Cut(u, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(name + ":$2y$" + string(hash[4:]) + "\n")
	}
	return writeFile(t, "users", []byte(file.String()))
}
