package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// metrics are counters of one's own: a Recorder is told of each session, and an
// Observer says how things are at the moment.
type metrics struct {
	watched  server.Observer
	opened   atomic.Int64
	up, down atomic.Int64
	mu       sync.Mutex
	ended    map[server.Reason]int
	last     chan struct{}
}

func (m *metrics) Opened(*server.Session) { m.opened.Add(1) }

func (m *metrics) Closed(s *server.Session, err error) {
	m.up.Add(s.Up())
	m.down.Add(s.Down())
	m.mu.Lock()
	m.ended[server.ReasonOf(err)]++
	m.mu.Unlock()
	m.last <- struct{}{}
}

// write writes them as somebody's monitoring might want them.
func (m *metrics) write() {
	now := m.watched.Gauges()
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Printf("opened %d, open %d, handshakes %d, up %d B, down %d B, closed %d\n",
		m.opened.Load(), now.Sessions, now.Handshakes, m.up.Load(), m.down.Load(), m.ended[server.Closed])
}

// everywhere is a policy that grants every address.
type everywhere struct{}

func (everywhere) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	return server.Grant{Rule: "everywhere", Addrs: []netip.Addr{r.Target.IP}}, nil
}

// A server is embedded, and its metrics are one's own.
func ExampleObserver() {
	echo := listen()
	defer echo.Close()
	go func() {
		if c, err := echo.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()

	m := &metrics{ended: map[server.Reason]int{}, last: make(chan struct{}, 1)}
	s := &server.Server{Policy: everywhere{}, Recorder: m}
	m.watched = s
	socket := listen()
	go func() { _ = s.Serve(context.Background(), socket, server.Listener{Name: "lan"}) }()
	defer s.Close()

	through, err := client.New("socks5://" + socket.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := through.DialContext(context.Background(), "tcp", echo.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(c, "hello")
	_, _ = io.ReadFull(c, make([]byte, 5))
	m.write()
	c.Close()
	<-m.last
	m.write()
	// Output:
	// opened 1, open 1, handshakes 0, up 0 B, down 0 B, closed 0
	// opened 1, open 0, handshakes 0, up 5 B, down 5 B, closed 1
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
}
