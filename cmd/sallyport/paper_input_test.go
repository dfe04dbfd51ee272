//go:build linux

package main_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
	"unicode"
)

// paperShortHandshake ends a handshake soon enough to wait for it.
const paperShortHandshake = `
log: {format: json}
timeouts: {handshake: 500ms}
rules: {allow: everything, from: loopback, to: any, bind: {primary: optional}}
`

func TestPaperInputCut(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	short := startPaper(t, paperSetup{settings: paperShortHandshake})
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for name, request := range map[string][]byte{
		"SOCKS 4":  paperAsk(paperCONNECT, echo, "bob"),
		"SOCKS 4a": paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), "bob"),
	} {
		t.Run(name+": in two pieces, cut at every byte", func(t *testing.T) {
			t.Parallel()
			for i := 1; i < len(request); i++ {
				client := s.dial(t, "")
				client.sends(request[:i])
				client.sends(request[i:], []byte("behind"))
				client.granted()
				client.hears("behind")
			}
		})
		t.Run(name+": cut off at every byte by a FIN", func(t *testing.T) {
			t.Parallel()
			for i := range request {
				client := s.ask(t, request[:i])
				client.stops()
				client.isClosed()
				s.ended(t, client, "client-gone")
			}
		})
		t.Run(name+": cut off at every byte by a reset", func(t *testing.T) {
			t.Parallel()
			for i := range request {
				client := s.ask(t, request[:i])
				client.resets()
				s.session(t, client)
			}
		})
		t.Run(name+": cut off at every byte by silence", func(t *testing.T) {
			t.Parallel()
			var clients []*paperConn
			for i := range request {
				clients = append(clients, short.ask(t, request[:i]))
			}
			for _, client := range clients {
				client.isClosed()
				short.ended(t, client, "handshake-slow")
			}
		})
	}
}

// What a request means does not depend on how slowly it comes.
func TestPaperInputBytewise(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	echo := paperEcho(t, nil, "127.0.0.1:0")
	for _, c := range []struct {
		name    string
		request []byte
		code    byte
	}{
		{"SOCKS 4", paperAsk(paperCONNECT, echo, "bob"), paperGranted},
		{"SOCKS 4a", paperAskName(paperCONNECT, "127.0.0.1", echo.Port(), "bob"), paperGranted},
		{"the longest userid", paperAskName(paperCONNECT, "localhost", echo.Port(), paperLong(255)), paperGranted},
		{"a userid too long", paperAsk(paperCONNECT, echo, paperLong(256))[:8+256], paperRejected},
		{"a host too long", paperAskName(paperCONNECT, paperLong(256), echo.Port(), "bob")[:8+4+256], paperRejected},
		{"an unknown command", paperAsk(7, echo, "bob"), paperRejected},
	} {
		t.Run(c.name+": byte by byte", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, "")
			for i := range c.request {
				client.sends(c.request[i : i+1])
			}
			client.answered(c.code)
			if c.code == paperGranted {
				client.echoes()
			}
		})
	}
}

func TestPaperInputCommands(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	x := paperListen(t, nil, "127.0.0.1:0")
	for _, command := range []byte{0, 3, 4, 'Z', 0x81, 255} {
		t.Run(fmt.Sprintf("command %d: 91", command), func(t *testing.T) {
			t.Parallel()
			for _, request := range [][]byte{paperAsk(command, x.addr, "bob"), paperAskName(command, "127.0.0.1", x.addr.Port(), "bob")} {
				client := s.ask(t, request)
				client.refused(paperRejected)
				s.ended(t, client, "unsupported")
			}
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

// Nothing is said to a scanner.
func TestPaperInputGarbage(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	// Letters could begin a request of HTTP.
	letters := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", protocols: [socks4, socks4a, socks5]}
rules: {allow: everything, from: loopback, to: any}
`})
	for _, c := range []struct{ name, bytes string }{
		{"NUL", "\x00"},
		{"1", "\x01\x00\x00\x00"},
		{"3", "\x03\x01\x00\x50\x7f\x00\x00\x01bob\x00"},
		{"6", "\x06\x01\x00\x50\x7f\x00\x00\x01bob\x00"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{"SSH", "SSH-2.0-scanner\r\n"},
		{"a digit 4, not a byte 4", "4\x01\x00\x50\x7f\x00\x00\x01bob\x00"},
		{"255", "\xff\xff\xff\xff"},
		{"lower-case letters", "quit\r\n"},
		{"newlines", "\r\n\r\n"},
		{"1 MiB of it", string(make([]byte, 1<<20))},
	} {
		t.Run(c.name+": closed without a byte", func(t *testing.T) {
			t.Parallel()
			at := s
			if unicode.IsLetter(rune(c.bytes[0])) {
				at = letters
			}
			client := at.dial(t, "")
			_, _ = io.WriteString(client, c.bytes) // it may be closed meanwhile
			client.isClosed()
			at.ended(t, client, "garbage")
		})
	}
}

// Where SOCKS 5 and HTTP are not served nothing is said to their clients, and
// nothing connected.
func TestPaperInputOtherProtocols(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", protocols: [socks4, socks4a]}
rules: {allow: everything, from: loopback, to: any}
`})
	x := paperListen(t, nil, "127.0.0.1:0")
	for _, c := range []struct{ name, bytes string }{
		{"SOCKS 5", "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + string([]byte{byte(x.addr.Port() >> 8), byte(x.addr.Port())})},
		{"HTTP CONNECT", fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", x.addr)},
		{"HTTP GET", fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n", x.addr)},
		{"the first letter of GET", "G"},
	} {
		t.Run(c.name+": closed without a byte", func(t *testing.T) {
			t.Parallel()
			client := s.dial(t, "")
			client.says(c.bytes)
			client.isClosed()
			s.ended(t, client, "garbage")
		})
	}
	t.Cleanup(func() { x.untouched(t) })
}

func TestPaperInputAtRandom(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: `
log: {format: json}
listeners: {name: lan, listen: "127.0.0.1:0", protocols: [socks4, socks4a]}
timeouts: {handshake: 500ms}
rules: []
`})
	before := s.descriptors(t)
	rnd := rand.New(rand.NewPCG(4, 91))
	clients := make([]*paperConn, 300)
	for i := range clients {
		b := make([]byte, rnd.IntN(600))
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		if len(b) > 2 && i%2 == 0 {
			b[0], b[1] = 4, byte(i/2%4)
		}
		clients[i] = s.dial(t, "")
		_, _ = clients[i].Write(b) // it may be closed meanwhile
		if i%3 == 0 {
			clients[i].stops()
		}
	}
	for i, c := range clients {
		said, _ := io.ReadAll(c)
		if len(said) != 0 && (len(said) != 8 || said[0] != 0 || said[1] != paperRejected) {
			t.Errorf("client %d was told % x", i, said)
		}
		c.leaves()
	}
	paperEventually(t, "the descriptors are back", func() bool { return s.descriptors(t) <= before+8 })
}

// A userid and a host without end are given up early, not collected.
func TestPaperInputWithoutEnd(t *testing.T) {
	t.Parallel()
	s := startPaper(t, paperSetup{settings: paperOpen})
	before := s.memory(t)
	for name, head := range map[string]string{
		"a userid": "\x04\x01\x00\x50\x7f\x00\x00\x01",
		"a host":   "\x04\x01\x00\x50\x00\x00\x00\x01bob\x00",
	} {
		t.Run(name+" of 256 MiB in 8 connections: 91 or a reset, and no memory", func(t *testing.T) {
			for range 8 {
				client := s.dial(t, "")
				client.says(head)
				sent := make(chan int64, 1)
				go func() {
					n, _ := io.Copy(client, io.LimitReader(paperLetters{}, 32<<20)) // it ends when the server has had enough
					sent <- n
				}()
				if code, _ := client.replied(); code != paperRejected {
					t.Errorf("reply %d, want 91", code)
				}
				if n := <-sent; n == 32<<20 {
					t.Errorf("all %d bytes were taken", n)
				}
			}
			if grown := s.memory(t) - before; grown > 64<<20 {
				t.Errorf("the program grew by %d bytes", grown)
			}
		})
	}
}

// paperLetters is a text without end.
type paperLetters struct{}

func (paperLetters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'u'
	}
	return len(b), nil
}

var paperResident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// memory returns how many bytes of memory the program holds.
func (s *paperServer) memory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := paperResident.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in %q", status)
	}
	kilobytes, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// A client that never closes, after a refusal, is not waited for without end.
func TestPaperInputLingerer(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	s := startPaper(t, paperSetup{settings: "log: {format: json}\nrules: []\n"})
	before := s.descriptors(t)
	var clients []*paperConn
	for range 50 {
		client := s.ask(t, paperAsk(paperCONNECT, paperAt("127.0.0.1", 9), "bob"))
		client.refused(paperRejected)
		clients = append(clients, client)
	}
	paperEventually(t, "the descriptors are back though nobody closes", func() bool { return s.descriptors(t) <= before+8 })

	t.Run("nor is one that sends on and on", func(t *testing.T) {
		client := s.ask(t, paperAsk(paperCONNECT, paperAt("127.0.0.1", 9), "bob"))
		client.refused(paperRejected)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := client.Write([]byte("more")); err != nil {
				if os.IsTimeout(err) {
					t.Error("it may go on until the test's patience ends")
				}
				return
			}
		}
	})
	for _, c := range clients {
		c.leaves()
	}
}
