package server

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// openingHTTP makes what a client of HTTP says, most of which asks for a CONNECT.
func (b *bothWays) openingHTTP(to netip.AddrPort) (said []byte) {
	authority := to.String()
	if b.IntN(5) == 0 {
		authority = fmt.Sprintf("%s:%d", b.host(), to.Port())
	}
	line := fmt.Sprintf("CONNECT %s HTTP/1.%d\r\n", authority, 1-b.IntN(8)/7)
	switch b.IntN(30) {
	case 0:
		line = strings.ToLower(line)
	case 1:
		line = "CONNECTED" + line[7:]
	case 2:
		line = "GET http://" + line[8:]
	case 3:
		line = strings.Replace(line, ":", "", 1)
	}
	said = []byte(line)
	for _, field := range []struct {
		oneIn int
		text  string
	}{
		{20, "Host: other.example\r\n"},
		{5, basic("fred:secret")},
		{8, basic("fred:hunter")},
		{20, "Proxy-Authorization: Digest x\r\n"},
		{3, "User-Agent: " + strings.Repeat("a", 1+b.IntN(100)) + "\r\n"},
		{12, "Cookie: " + strings.Repeat("c", 1+b.IntN(3000)) + "\r\n"},
		{8, "Proxy-Connection: keep-alive\r\n"},
		{12, "Connection: close\r\n"},
		{20, "Content-Length: 0\r\n"},
		{40, "Content-Length: 3\r\n"},
		{40, " folded\r\n"},
		{40, "Bad: \x01\r\n"},
	} {
		if b.IntN(field.oneIn) == 0 {
			said = append(said, field.text...)
		}
	}
	if b.IntN(20) > 0 {
		said = append(said, "Host: "+authority+"\r\n"...)
	}
	before := ""
	switch b.IntN(16) { // on the same connection
	case 0:
		before = "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"
	case 1:
		before = "GET http://127.0.0.1:7/ HTTP/1.1\r\nHost: a\r\n" + basic("fred:hunter") + "\r\n"
	case 2:
		before = "CONNECT 127.0.0.1:7 HTTP/1.1\r\nHost: a\r\n" + basic("fred:hunter") + "\r\n"
	}
	return append([]byte(before), append(said, "\r\n"...)...)
}

// ofMapping are the mappings of a bothWays, whose targets are all on this machine. Nothing that
// depends on the port of a connection is said to any of them.
func (b *bothWays) ofMapping(socket string) []*Mapping {
	forbidden := netip.MustParseAddrPort("127.0.0.1:7")
	to := func(targets ...netip.AddrPort) *Mapping { return mappingOf(targets...) }
	balanced := func(m *Mapping, order ...int) *Mapping {
		m.Balance = &chosen{order: order}
		return m
	}
	named := to(b.closed, b.echo)
	named.Targets[1].Addr = socks.Addr{Name: "host.example", Port: b.echo.Port()}
	several := to(b.closed, b.closed)
	several.Targets[0].Addr = socks.Addr{Name: "none.example", Port: b.echo.Port()}
	several.Targets[1].Addr = socks.Addr{Name: "many.example", Port: b.echo.Port()}
	several.Balance = &chosen{order: []int{0, 1}}
	local := to(b.closed, b.echo)
	local.Targets[1] = MapTarget{Socket: socket}
	return []*Mapping{
		to(b.echo), to(b.closed), to(forbidden), to(b.resets),
		to(b.closed, forbidden, b.echo), to(forbidden, b.closed), balanced(to(b.closed, b.closed), 1, 0),
		balanced(to(b.echo, forbidden, b.closed), 2, 1, 0), balanced(to(b.resets), 0), balanced(to(b.echo)), named, several, local,
	}
}

// echoes answers on a unix socket with what it hears.
func (b *bothWays) echoes(path string) {
	socket, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { socket.Close() })
	go func() {
		for {
			c, err := socket.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// startMappings serves each mapping both ways.
func (b *bothWays) startMappings() {
	socket := filepath.Join(b.TempDir(), "echo")
	b.echoes(socket)
	both := [2][]*Mapping{b.ofMapping(socket), b.ofMapping(socket)}
	for i := range both[0] {
		var rigs [2]*rig
		for way, p := range []Policy{unhurried{b.policy()}, deliberate{b.policy()}} {
			rigs[way] = onLoopback(b, &Server{Policy: p, Timeouts: Timeouts{Handshake: time.Second}}, Listener{Mapping: both[way][i]})
		}
		b.mapped = append(b.mapped, rigs)
	}
}

// balances compares what the two balances of each mapping were told.
func (b *bothWays) balances() {
	for i, rigs := range b.mapped {
		var told [2]string
		for way, r := range rigs {
			if c, ok := r.door.listener.Load().Mapping.Balance.(*chosen); ok {
				told[way] = c.all()
			}
		}
		if told[0] != told[1] {
			b.Errorf("of mapping %d the balance was told %s on loops, %s in goroutines", i+1, told[0], told[1])
		}
	}
}
