//go:build linux

package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// What the first byte of a connection makes the target do, until the client ends it.
const (
	echo   = 'e' // send back what comes, this byte too
	source = 'd' // send
	sink   = 'u' // take
	both   = 'b' // send and take
	idle   = 'i' // pass the connection on to the crowd's process, which sends this byte back
)

// chunk is how much both ends of bulk read and write at once, in bytes.
const chunk = 256 << 10

// Target is where the loads go. One serves all: fixed forwarders know only one.
type Target struct {
	ln   *net.TCPListener
	took atomic.Int64 // bytes of bulk

	mu    sync.Mutex
	conns map[*net.TCPConn]bool
	crowd *net.UnixConn // whom idle connections are passed on to
	wg    sync.WaitGroup
}

// Listen starts a target on a free port of loopback. Close ends it and every connection to it.
func Listen(ctx context.Context) (*Target, error) {
	lc := net.ListenConfig{KeepAlive: -1} // in what is idle nothing moves
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &Target{ln: ln.(*net.TCPListener), conns: map[*net.TCPConn]bool{}}
	t.wg.Go(t.accept)
	return t, nil
}

// Address is where it listens.
func (t *Target) Address() netip.AddrPort { return t.ln.Addr().(*net.TCPAddr).AddrPort() }

// Close returns when nothing of the target is left.
func (t *Target) Close() {
	t.ln.Close()
	t.mu.Lock()
	for conn := range t.conns {
		conn.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// open returns how many connections there are.
func (t *Target) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

func (t *Target) accept() {
	for {
		conn, err := t.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		t.mu.Lock()
		t.conns[conn] = true
		t.mu.Unlock()
		t.wg.Go(func() {
			t.serve(conn)
			conn.Close()
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.conns, conn)
		})
	}
}

// serve does what the client's first byte says. How a connection ends is the client's matter.
func (t *Target) serve(conn *net.TCPConn) {
	small := make([]byte, 128)
	n, err := conn.Read(small)
	if err != nil {
		return
	}
	switch small[0] {
	case echo:
		for err == nil {
			if _, err = conn.Write(small[:n]); err == nil {
				n, err = conn.Read(small)
			}
		}
	case source:
		pour(conn)
	case sink:
		drain(conn, &t.took)
	case both:
		var wg sync.WaitGroup
		wg.Go(func() { pour(conn) })
		drain(conn, &t.took)
		wg.Wait()
	case idle:
		t.passOn(conn)
	}
}

// pour writes until it fails.
func pour(conn io.Writer) {
	data := make([]byte, chunk)
	for {
		if _, err := conn.Write(data); err != nil {
			return
		}
	}
}

// drain reads until it fails, and counts.
func drain(conn io.Reader, count *atomic.Int64) {
	data := make([]byte, chunk)
	for {
		n, err := conn.Read(data)
		count.Add(int64(n))
		if err != nil {
			return
		}
	}
}
