//go:build unix

package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// socketConn is what TCP and Unix connections have in common.
type socketConn interface {
	net.Conn
	CloseWrite() error
	SetWriteBuffer(bytes int) error
}

// socketPair connects through ln.
func socketPair(tb testing.TB, ln net.Listener) (dialled, accepted socketConn) {
	tb.Helper()
	d, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Close(); a.Close() })
	return d.(socketConn), a.(socketConn)
}

func listen(tb testing.TB, network string) net.Listener {
	tb.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(tb.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	return ln
}

// socketRig is a relay between two real connections, and their far ends.
type socketRig struct {
	client, target         socketConn
	nearClient, nearTarget socketConn
	meter                  Meter
	best                   means
	cancel                 context.CancelCauseFunc
	ended                  chan error
}

// everyMeans is what the suite runs over.
var everyMeans = map[string]means{"streams": streams, "sockets": sockets, "looped": looped}

func newSocketRig(tb testing.TB, ln net.Listener, best means) *socketRig {
	r := &socketRig{best: best, ended: make(chan error, 1)}
	r.client, r.nearClient = socketPair(tb, ln)
	r.target, r.nearTarget = socketPair(tb, ln)
	return r
}

func (r *socketRig) run(ctx context.Context, head string, l Limits) *socketRig {
	ctx, r.cancel = context.WithCancelCause(ctx)
	go func() {
		err := run(ctx, Side{Conn: r.nearClient, Head: []byte(head)}, Side{Conn: r.nearTarget}, &r.meter, l, r.best)
		r.nearClient.Close()
		r.nearTarget.Close()
		r.cancel(nil)
		r.ended <- err
	}()
	return r
}

// end returns what Run did.
func (r *socketRig) end(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(20 * time.Second):
		tb.Fatal("the relay does not end")
		return nil
	}
}

// reset sends an RST. So that it finds the connection at rest, the caller sees to it that nothing is under way.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// shape is how one side of a random session behaves.
type shape struct {
	Size  int
	Piece int  // bytes a write and a read
	Tight bool // the kernel has room for a few KiB only, so that writes to it and from it are taken in parts
	Last  bool // says its bytes only after the other side's FIN
}

func randomShape(rnd *rand.Rand) shape {
	s := shape{Size: rnd.IntN(1 << rnd.IntN(20)), Piece: 1 + rnd.IntN(1<<(8+rnd.IntN(10))), Tight: rnd.IntN(3) == 0}
	s.Piece = max(s.Piece, s.Size/100) // a hundred system calls are enough
	return s
}

// play sends s's bytes and takes the other's, and reports the checksums of both.
func (s shape) play(c socketConn, head []byte, seed uint64) (sent, got []byte, err error) {
	out, in := sha256.New(), sha256.New()
	out.Write(head)
	talk := func() error { return s.talk(c, out, seed) }
	read := func() error {
		_, err := io.CopyBuffer(in, struct{ io.Reader }{c}, make([]byte, s.Piece))
		return err
	}
	if s.Last {
		err = errors.Join(read(), talk())
	} else {
		var wg sync.WaitGroup
		var talked error
		wg.Go(func() { talked = talk() })
		err = errors.Join(read())
		wg.Wait()
		err = errors.Join(err, talked)
	}
	return out.Sum(nil), in.Sum(nil), err
}

func (s shape) talk(c socketConn, out hash.Hash, seed uint64) error {
	data := make([]byte, s.Size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(s.Size)}).Read(data)
	out.Write(data)
	for len(data) > 0 {
		n := min(s.Piece, len(data))
		if _, err := c.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return c.CloseWrite()
}

// tighten makes the send buffers of conns small, if tight. The receive buffers stay, as a small window costs time only.
func tighten(tight bool, conns ...socketConn) {
	for _, c := range conns {
		if tight {
			_ = c.SetWriteBuffer(4 << 10)
		}
	}
}

// TestShapes relays sessions of random sizes, pieces, heads and orders of FINs, and compares what was sent with what
// arrived.
func TestShapes(t *testing.T) {
	count := uint64(1000)
	if testing.Short() {
		count = 100
	}
	for name, best := range everyMeans {
		t.Run(name, func(t *testing.T) {
			listeners := []net.Listener{listen(t, "tcp"), listen(t, "unix")}
			for seed := range count {
				testShape(t, listeners[seed%2], seed, best)
			}
		})
	}
}

func testShape(t *testing.T, ln net.Listener, seed uint64, best means) {
	t.Helper()
	r := newSocketRig(t, ln, best)
	r.playShape(t, seed, func(head string, l Limits) { r.run(t.Context(), head, l) })
}

// playShape has both ends of a relay do what the seed says. It is begun with what was read from the client before.
func (r *socketRig) playShape(t *testing.T, seed uint64, begin func(head string, l Limits)) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 4))
	client, target := randomShape(rnd), randomShape(rnd)
	client.Last = seed%3 == 1
	target.Last = seed%3 == 2
	head := make([]byte, rnd.IntN(1<<rnd.IntN(16)))
	name := fmt.Sprintf("seed %d: client %+v, target %+v, head %d", seed, client, target, len(head))

	begin(string(head), Limits{Idle: time.Minute})
	tighten(client.Tight, r.client, r.nearClient)
	tighten(target.Tight, r.target, r.nearTarget)
	var wg sync.WaitGroup
	var sentUp, gotUp, sentDown, gotDown []byte
	var clientErr, targetErr error
	wg.Go(func() { sentUp, gotDown, clientErr = client.play(r.client, head, seed) })
	wg.Go(func() { sentDown, gotUp, targetErr = target.play(r.target, nil, seed+1) })
	wg.Wait()
	if err := errors.Join(r.end(t), clientErr, targetErr); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !bytes.Equal(sentUp, gotUp) || !bytes.Equal(sentDown, gotDown) {
		t.Fatalf("%s: what arrived is not what was sent", name)
	}
	if r.meter.Up() != int64(len(head)+client.Size) || r.meter.Down() != int64(target.Size) {
		t.Fatalf("%s: meter says up %d, down %d", name, r.meter.Up(), r.meter.Down())
	}
	r.client.Close()
	r.target.Close()
}

// wantReset requires the fault and that other was reset, by a read that yields ECONNRESET and not EOF.
func (r *socketRig) wantReset(t *testing.T, fault error, others ...net.Conn) {
	t.Helper()
	if err := r.end(t); !errors.Is(err, fault) {
		t.Errorf("Run returned %v, want %v", err, fault)
	}
	for _, c := range others {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reading after the relay's end: %v, want ECONNRESET", err)
		}
	}
}

// sides returns the ends of r, that which will reset first, and what its reset is called.
func (r *socketRig) sides(byClient bool) (one, other socketConn, fault error) {
	if byClient {
		return r.client, r.target, ErrClientReset
	}
	return r.target, r.client, ErrTargetReset
}

func TestResetArrivesAsReset(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, one, other socketConn){
		"at rest": func(*testing.T, socketConn, socketConn) {},
		"after bytes": func(t *testing.T, one, other socketConn) {
			say(t, one, "to and")
			hear(t, other, "to and")
			say(t, other, "fro")
			hear(t, one, "fro")
		},
		"after the other's FIN": func(t *testing.T, one, other socketConn) {
			_ = other.CloseWrite()
			hearEOF(t, one)
		},
		"while a write to the other is blocked": func(t *testing.T, one, other socketConn) {
			fill(t, one)
		},
		"while a write to the other is blocked, after its FIN": func(t *testing.T, one, other socketConn) {
			_ = other.CloseWrite()
			hearEOF(t, one)
			fill(t, one)
		},
		"while writes are blocked both ways": func(t *testing.T, one, other socketConn) {
			fill(t, one)
			fill(t, other)
		},
	} {
		for layer, best := range everyMeans {
			for _, byClient := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/by client %v", layer, name, byClient), func(t *testing.T) {
					t.Parallel()
					r := newSocketRig(t, listen(t, "tcp"), best).run(t.Context(), "", Limits{Idle: time.Hour, HalfClosed: time.Hour})
					one, other, fault := r.sides(byClient)
					prepare(t, one, other)
					reset(one)
					r.wantReset(t, fault, other)
				})
			}
		}
	}
}

// TestLastWords: what was said before a reset arrives before it, and be it that both have come before the relay begins.
func TestLastWords(t *testing.T) {
	for name, best := range everyMeans {
		t.Run(name, func(t *testing.T) {
			for i := range 50 {
				r := newSocketRig(t, listen(t, "tcp"), best)
				one, other, fault := r.sides(i%2 == 0)
				say(t, one, "last words")
				reset(one)
				r.run(t.Context(), "", Limits{Idle: time.Hour})
				hear(t, other, "last words")
				r.wantReset(t, fault, other)
			}
		})
	}
}

// TestResetAfterFIN: nobody reads a side that has said FIN, and yet its reset is noticed. Behind a FIN it arrives as the
// failure of a write.
func TestResetAfterFIN(t *testing.T) {
	for _, byClient := range []bool{true, false} {
		t.Run(fmt.Sprintf("by client %v", byClient), func(t *testing.T) {
			t.Parallel()
			r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "", Limits{Idle: time.Hour, HalfClosed: time.Hour})
			one, other, fault := r.sides(byClient)
			_ = one.CloseWrite()
			hearEOF(t, other)
			reset(one)
			if err := r.end(t); !errors.Is(err, fault) {
				t.Errorf("Run returned %v, want %v", err, fault)
			}
			if _, err := other.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("writing after the relay's end: %v, want EPIPE", err)
			}
		})
	}
}

// fill writes into c until nothing moves any more, as nobody reads at the other end.
func fill(t *testing.T, c net.Conn) {
	t.Helper()
	chunk := make([]byte, 256<<10)
	for range 1000 {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Write(chunk); errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			return
		}
	}
	t.Error("the relay takes bytes without end, though nobody reads them")
}

func TestPendingError(t *testing.T) {
	ln := listen(t, "tcp")
	for name, test := range map[string]struct {
		prepare func(near, far socketConn)
		reset   bool // is what must be seen
	}{
		"nothing": {func(_, _ socketConn) {}, false},
		"bytes":   {func(_, far socketConn) { say(t, far, "x") }, false},
		"FIN":     {func(near, far socketConn) { far.CloseWrite(); hearEOF(t, near) }, false},
		"both FINs": {func(near, far socketConn) { // to poll this is a hang-up, too
			far.CloseWrite()
			near.CloseWrite()
			hearEOF(t, near)
			hearEOF(t, far)
		}, false},
		"closed":             {func(near, _ socketConn) { near.Close() }, false},
		"reset":              {func(_, far socketConn) { reset(far) }, true},
		"bytes and reset":    {func(_, far socketConn) { say(t, far, "x"); reset(far) }, true},
		"FIN and reset":      {func(near, far socketConn) { far.CloseWrite(); hearEOF(t, near); reset(far) }, true},
		"reset behind a FIN": {func(near, far socketConn) { near.CloseWrite(); hearEOF(t, far); reset(far) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := socketPair(t, ln)
			test.prepare(near, far)
			if test.reset {
				waitFor(t, func() bool { return pendingError(shell{conn{near}}) != nil }, func() string { return "the reset is not seen" })
			} else if err := pendingError(near); err != nil {
				t.Errorf("pendingError returned %v, want nil", err)
			}
		})
	}
	if near, _ := memPair(0); pendingError(near) != nil {
		t.Error("a connection without a socket has an error pending")
	}
}

func TestEndsThatAreNoCompletionReset(t *testing.T) {
	cause := errors.New("killed by the administrator")
	for name, test := range map[string]struct {
		limits Limits
		act    func(r *socketRig)
		want   error
	}{
		"idle":        {Limits{Idle: 50 * time.Millisecond}, func(*socketRig) {}, ErrIdle},
		"half-closed": {Limits{HalfClosed: 50 * time.Millisecond}, func(r *socketRig) { _ = r.client.CloseWrite() }, ErrHalfClosed},
		"context":     {Limits{}, func(r *socketRig) { r.cancel(cause) }, cause},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "", test.limits)
			say(t, r.client, "x")
			hear(t, r.target, "x")
			test.act(r)
			r.wantReset(t, test.want, r.client)
		})
	}
}

// TestIdleRelaysHoldNoBuffers moves a lot through many relays and then counts what they hold while nothing moves.
func TestIdleRelaysHoldNoBuffers(t *testing.T) {
	const relays, most = 100, 8 << 10 // the smallest buffer is twice that
	ln := listen(t, "tcp")
	before := heapInUse()
	var rigs []*socketRig
	for range relays {
		r := newSocketRig(t, ln, looped).run(t.Context(), "", Limits{Idle: time.Hour})
		rigs = append(rigs, r)
		for _, c := range [][2]socketConn{{r.client, r.target}, {r.target, r.client}} {
			go c[0].Write(make([]byte, 300<<10))
			if _, err := io.CopyN(io.Discard, c[1], 300<<10); err != nil {
				t.Fatal(err)
			}
		}
	}
	if held := (heapInUse() - before) / relays; held > most {
		t.Errorf("an idle relay holds %d bytes of heap, want at most %d", held, most)
	}
	for _, r := range rigs {
		r.cancel(nil)
		r.end(t)
	}
}

// heapInUse returns the bytes of live objects, what lies in pools not among them.
func heapInUse() int64 {
	for range 3 { // a pool survives one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestNothingIsLeft counts descriptors and goroutines after sessions that ended in every way.
func TestNothingIsLeft(t *testing.T) {
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc to count descriptors")
		}
		return len(list)
	}
	ln := listen(t, "tcp")
	files, routines := descriptors(), runtime.NumGoroutine()
	ends := []func(r *socketRig){
		func(r *socketRig) { _ = r.client.Close(); _ = r.target.Close() },
		func(r *socketRig) { reset(r.client) },
		func(r *socketRig) { reset(r.target) },
		func(r *socketRig) { r.cancel(nil) },
	}
	for i := range 100 {
		r := newSocketRig(t, ln, looped).run(t.Context(), "", Limits{Idle: time.Hour})
		say(t, r.client, "x")
		hear(t, r.target, "x")
		ends[i%len(ends)](r)
		r.end(t)
		_ = r.client.Close()
		_ = r.target.Close()
	}
	waitFor(t, func() bool { return descriptors() <= files && runtime.NumGoroutine() <= routines },
		func() string {
			return fmt.Sprintf("%d descriptors and %d goroutines, want %d and %d", descriptors(), runtime.NumGoroutine(), files, routines)
		})
}

// waitFor polls until done, and fails with what when it does not come.
func waitFor(t *testing.T, done func() bool, what func() string) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Error(what())
}
