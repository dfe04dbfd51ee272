//go:build unix

package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestHalfOpenHandshakes: 500 clients that have begun to speak and go no further
// keep nobody from being served.
func TestHalfOpenHandshakes(t *testing.T) {
	r := onLoopback(t, &Server{Policy: deciding(anything), Timeouts: Timeouts{Handshake: time.Minute}}, Listener{})
	echo := proxytest.Echo(t, "127.0.0.1")
	request := proxytest.Connect4(echo, "bob")
	for i := range 500 {
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, request[:i%len(request)])
	}
	for range 10 {
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, request)
		proxytest.Granted4(t, c)
		talk(t, c)
		c.Close()
		r.next(Closed)
	}
	if n := len(r.ends); n > 0 {
		t.Errorf("%d of the half-open connections were ended", n)
	}
}

const (
	crowd     = 1000
	crowdSize = 256<<20/crowd + 1 // bytes each way of each session
)

// payload is what one side of a session sends: a stretch of noise that no other
// side has.
type payload struct{ noise []byte }

func newPayload() payload {
	p := payload{make([]byte, 4*crowd*64+crowdSize)}
	_, _ = rand.NewChaCha8([32]byte{}).Read(p.noise) // never fails
	return p
}

func (p payload) of(session int, up bool) []byte {
	at := session * 64 * 2
	if up {
		at += 64
	}
	return p.noise[at : at+crowdSize]
}

// speaker is one side of a session of the crowd.
type speaker struct {
	*net.TCPConn
	says, hears []byte
	last        bool // it speaks only after the other side's FIN
}

// play sends and receives, and reports what did not arrive as it was sent.
func (s speaker) play() error {
	sent := make(chan error, 1)
	say := func() {
		_, err := s.Write(s.says)
		sent <- errors.Join(err, s.CloseWrite())
	}
	if !s.last {
		go say()
	}
	sum := sha256.New()
	n, err := io.Copy(sum, s)
	if s.last {
		say()
	}
	err = errors.Join(err, <-sent)
	want := sha256.Sum256(s.hears)
	if err == nil && !bytes.Equal(sum.Sum(nil), want[:]) {
		err = fmt.Errorf("%d bytes of %d arrived, or others", n, len(s.hears))
	}
	return err
}

// TestCrowd: a thousand sessions at once, 256 MiB each way in sum, of which a
// third ends first from the client's side and a third from the target's.
func TestCrowd(t *testing.T) {
	needs(t, 5*crowd)
	r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
	noise, target := newPayload(), proxytest.NewTarget(t, "127.0.0.1")
	var wg sync.WaitGroup
	var open sync.WaitGroup
	open.Add(crowd)
	counted := make(chan struct{})
	wg.Go(func() {
		for range crowd {
			far := target.Next(t)
			wg.Go(func() { playTarget(t, far, noise) })
		}
	})
	clients := make(chan *net.TCPConn, crowd)
	for range crowd {
		clients <- proxytest.Dial(t, r.address)
	}
	for i := range crowd {
		c := <-clients
		wg.Go(func() {
			proxytest.Say(t, c, proxytest.Connect4(target.Addr(), "bob"))
			proxytest.Granted4(t, c)
			open.Done()
			<-counted
			proxytest.Say(t, c, binary.BigEndian.AppendUint32(nil, uint32(i)))
			if err := (speaker{c, noise.of(i, true), noise.of(i, false), i%3 == 1}).play(); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	open.Wait()
	if n := r.open(); n != crowd {
		t.Errorf("%d sessions are open at once, want %d", n, crowd)
	}
	close(counted)
	wg.Wait()
	var up, down int64
	for range crowd {
		e := r.next(Closed)
		up, down = up+e.Up(), down+e.Down()
	}
	if up != crowd*(crowdSize+4) || down != crowd*crowdSize {
		t.Errorf("counted %d bytes up and %d down", up, down)
	}
}

func playTarget(t *testing.T, far *net.TCPConn, noise payload) {
	t.Helper()
	var id [4]byte
	if _, err := io.ReadFull(far, id[:]); err != nil {
		t.Errorf("target: %v", err)
		return
	}
	i := int(binary.BigEndian.Uint32(id[:]))
	if err := (speaker{far, noise.of(i, false), noise.of(i, true), i%3 == 2}).play(); err != nil {
		t.Errorf("target %d: %v", i, err)
	}
}

// needs skips a slow test where it is not wanted, and fails one that would fail
// for nothing but too few descriptors.
func needs(t *testing.T, descriptors uint64) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) < descriptors {
		t.Fatalf("%d descriptors are needed, and there are %d (%v): raise the limit with ulimit -n", descriptors, limit.Cur, err)
	}
}

// counting is a Recorder that counts.
type counting struct {
	opened, closed atomic.Int64
	failed         atomic.Int64 // for another reason than those that the soak has
}

func (c *counting) Opened(*Session) { c.opened.Add(1) }

func (c *counting) Closed(_ *Session, err error) {
	c.closed.Add(1)
	if r := ReasonOf(err); r != Closed && r != ClientReset {
		c.failed.Add(1)
	}
}

// vitals is what must be the same before and after a soak.
type vitals struct {
	goroutines, descriptors int
	heap                    uint64 // bytes
}

func takeVitals(tb testing.TB) vitals {
	tb.Helper()
	runtime.GC()
	runtime.GC() // the first one empties the pools only by half
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return vitals{runtime.NumGoroutine(), descriptors(tb), m.HeapAlloc}
}

// TestSoak: after 50,000 short sessions that end in all ways there are as many
// goroutines, descriptors and bytes as before.
func TestSoak(t *testing.T) {
	needs(t, 1000)
	const workers, sessions, warmUp = 16, 50_000, 500
	told := &counting{}
	r := onLoopback(t, &Server{Policy: deciding(anything), Recorder: told}, Listener{})
	targets := make([]string, workers)
	for i := range targets {
		targets[i] = soakTarget(t, fmt.Sprintf("127.0.0.%d:0", 2+i))
	}
	run := func(total int) {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				s := soaker{t, r.address, targets[w], fmt.Sprintf("127.0.1.%d", 1+w)}
				for i := range total / workers {
					if err := s.session(i % 4); err != nil {
						t.Errorf("session %d of worker %d: %v", i, w, err)
						return
					}
				}
			})
		}
		wg.Wait()
		want := told.opened.Load()
		proxytest.Eventually(t, "all sessions are over", func() bool { return told.closed.Load() == want })
	}
	run(warmUp)
	before := takeVitals(t)
	run(sessions)
	if told.opened.Load() < sessions || told.failed.Load() > 0 {
		t.Errorf("%d sessions, %d ended oddly", told.opened.Load(), told.failed.Load())
	}
	var after vitals
	proxytest.Eventually(t, "goroutines, descriptors and memory are what they were", func() bool {
		after = takeVitals(t)
		return after.goroutines <= before.goroutines && after.descriptors <= before.descriptors && after.heap <= before.heap+2<<20
	})
	t.Logf("before %+v, after %+v", before, after)
}
