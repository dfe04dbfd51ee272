package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// everybody grants every address, and claims are names.
type everybody struct{}

func (everybody) Decide(_ context.Context, r *server.Request) (server.Grant, error) {
	if r.Target.Port == 1 {
		return server.Grant{Rule: "not there"}, server.Denied
	}
	return server.Grant{Rule: "anything", Addrs: []netip.Addr{r.Target.IP}}, nil
}

// bench is a server in memory that writes a ledger, and a target that answers
// what it gets twice.
type bench struct {
	*Ledger
	place    Place
	in       *proxytest.Listener
	up, down atomic.Int64 // as the target counts
	ports    atomic.Uint32
	end      func() // ends the server, then the ledger
}

func newBench(t *testing.T, place Place, flush time.Duration) *bench {
	t.Helper()
	b := &bench{place: place}
	var err error
	quiet := slog.New(slog.DiscardHandler)
	if b.Ledger, err = Open(t.Context(), b.place, Options{Flush: flush, Keep: keepAll, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	network := proxytest.NewNetwork(netip.MustParseAddr("127.0.0.1"), 64<<10)
	b.in = network.MustListen("127.0.0.1:1080")
	target := network.MustListen("127.0.0.2:80")
	s := &server.Server{Policy: everybody{}, Outbound: network, Recorder: b.Ledger, Log: quiet}
	ctx, stop := context.WithCancel(context.Background())
	var all, writing sync.WaitGroup
	all.Go(func() { b.answer(target) })
	all.Go(func() {
		if err := s.Serve(context.Background(), b.in, server.Listener{Name: "lan"}); !errors.Is(err, server.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	writing.Go(func() { b.Run(ctx) })
	b.end = sync.OnceFunc(func() {
		hurry, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(hurry); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		target.Close()
		all.Wait()
		stop()
		writing.Wait()
	})
	t.Cleanup(b.end)
	return b
}

// answer is the target: it counts, and sends back twice what it gets.
func (b *bench) answer(l *proxytest.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			buffer := make([]byte, 4096)
			for {
				n, err := c.Read(buffer)
				b.up.Add(int64(n))
				if err != nil {
					return
				}
				for range 2 {
					n, _ := c.Write(buffer[:n])
					b.down.Add(int64(n))
				}
			}
		})
	}
}

// connects asks for the target as user; port 1 is denied.
func (b *bench) connects(user string, port uint16) (net.Conn, error) {
	n := b.ports.Add(1)
	from := netip.AddrFrom4([4]byte{127, 1, byte(n >> 14), 1}) // few connections wait of each source
	c, err := b.in.Dial(netip.AddrPortFrom(from, uint16(n%60000+1)))
	if err != nil {
		return nil, err
	}
	request := append(binary.BigEndian.AppendUint16([]byte{4, 1}, port), 127, 0, 0, 2)
	request = append(append(request, user...), 0)
	var reply [8]byte
	if _, err = c.Write(request); err == nil {
		_, err = io.ReadFull(c, reply[:])
	}
	if err == nil && (reply[1] == 90) == (port == 1) {
		err = fmt.Errorf("the reply is %d", reply[1])
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// asks sends n bytes and reads the answer.
func asks(c net.Conn, n int) error {
	if _, err := c.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, c, 2*int64(n))
	return err
}

// visits is a session that sends n bytes, and, if asked for, one that is denied.
func (b *bench) visits(user string, n int, denied bool) error {
	c, err := b.connects(user, 80)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := asks(c, n); err != nil || !denied {
		return err
	}
	refused, err := b.connects(user, 1)
	if err == nil {
		refused.Close()
	}
	return err
}

// TestEveryByteCounts: the ledger has what the targets have counted, after many
// short sessions while it is written, to the byte and to the session.
func TestEveryByteCounts(t *testing.T) { everywhere(t, everyByteCounts) }

func everyByteCounts(t *testing.T, place Place) {
	each := 1250
	switch {
	case testing.Short():
		each = 50
	case place.IsShared(): // once is enough to count so many
		each = 250
	}
	const users = 8
	b := newBench(t, place, 5*time.Millisecond)
	var all sync.WaitGroup
	for user := range users {
		all.Go(func() {
			for i := range each {
				if err := b.visits(fmt.Sprintf("user %d", user), 1+(i*7919+user)%3000, i%10 == 0); err != nil {
					t.Errorf("session %d of user %d: %v", i, user, err)
					return
				}
			}
		})
	}
	all.Wait()
	b.end()
	want := Counts{Sessions: int64(users * each), Refused: int64(users * ((each + 9) / 10)), Up: b.up.Load(), Down: b.down.Load()}
	for _, by := range Groups() {
		r := reads(t, b.place, Query{By: by})
		if r.Sum != want {
			t.Errorf("by %s: %+v, want %+v", by, r.Sum, want)
		}
	}
	if r := reads(t, b.place, Query{By: "user"}); len(r.Lines) != users+1 { // one more: nobody is let in by a name
		t.Errorf("%d users: %+v", len(r.Lines), r.Lines)
	}
	if r := reads(t, b.place, Query{By: "rule", User: "user 3"}); len(r.Lines) != 1 || r.Lines[0].Name != "anything" || r.Sum.Sessions != int64(each) {
		t.Errorf("of one user: %+v", r)
	}
}

// TestOpenSessionsCount: what a session moves is in the ledger before it ends, and
// is counted once.
func TestOpenSessionsCount(t *testing.T) { everywhere(t, openSessionsCount) }

func openSessionsCount(t *testing.T, place Place) {
	b := newBench(t, place, time.Millisecond)
	c, err := b.connects("alice", 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for round := int64(1); round <= 3; round++ {
		if err := asks(c, 1000); err != nil {
			t.Fatal(err)
		}
		want := Counts{Sessions: 1, Up: 1000 * round, Down: 2000 * round}
		proxytest.Eventually(t, "it is written", func() bool { return reads(t, b.place, Query{By: "host"}).Sum == want })
	}
	c.Close()
	b.end()
	r := reads(t, b.place, Query{By: "host"})
	if len(r.Lines) != 1 || r.Lines[0] != (Line{"127.0.0.2", Counts{Sessions: 1, Up: 3000, Down: 6000}}) {
		t.Errorf("%+v", r.Lines)
	}
}

// TestLegible: names of any bytes stay apart.
func TestLegible(t *testing.T) {
	for in, want := range map[string]string{"alice": "alice", "Zoë": "Zoë", "a\nb": `a\nb`, `a\nb`: `a\\nb`, "\xff": `\xff`, "": ""} {
		if got := legible(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestTooManyKeys: beyond the bound the sums stay right, and it is said.
func TestTooManyKeys(t *testing.T) {
	c := newCounter(Apart{})
	for i := range mostKeys + 500 {
		c.add(Key{Host: fmt.Sprint(i)}, Counts{Sessions: 1, Up: 2})
	}
	if !c.collect() {
		t.Error("it is not said")
	}
	batch := c.take()
	if len(batch) != mostKeys+1 || batch[Key{other, other, other, other, other}] != (Counts{Sessions: 500, Up: 1000}) {
		t.Errorf("%d keys", len(batch))
	}
	if c.collect() {
		t.Error("it is said again, when there is room")
	}
}

// ended returns a session of a user that has reached a host.
func ended(user, host string) *server.Session {
	at := netip.MustParseAddrPort("192.0.2.1:443")
	return server.NewSession(server.Record{
		Listener: "lan", Client: at, Identity: server.Identity{Name: user, Proof: server.Password}, Target: socks.Addr{Name: host, Port: 443}, Address: at, Rule: "web",
	})
}

// TestManySubjects: however many different sessions end between two writes, each is
// counted once, by what it is counted by.
func TestManySubjects(t *testing.T) {
	c := newCounter(Apart{Hosts: mostSubjects * 2})
	const each = 2
	for range each {
		for i := range mostSubjects + 10 {
			s := ended("alice", fmt.Sprint(i))
			c.Opened(s)
			c.Closed(s, nil)
		}
	}
	if c.collect() {
		t.Error("there are too many")
	}
	batch := c.take()
	for k, counts := range batch {
		if counts != (Counts{Sessions: each}) || k.User != "alice" || k.Source != "192.0.2.1" || k.Rule != "web" {
			t.Fatalf("%+v has %+v", k, counts)
		}
	}
	if len(batch) != mostSubjects+10 || len(c.open) > 0 {
		t.Errorf("%d keys, %d open", len(batch), len(c.open))
	}
	if c.collect(); len(c.take()) > 0 {
		t.Error("they are counted again")
	}
}

// TestCountingAllocates nothing for a session like one before.
func TestCountingAllocates(t *testing.T) {
	c := newCounter(Apart{})
	s := ended("alice", "www.example")
	if n := testing.AllocsPerRun(200, func() { c.Opened(s); c.Closed(s, nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}
