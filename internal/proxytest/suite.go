package proxytest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

// Start starts a proxy that grants a client just the targets that allow
// accepts, and ends it with the test, which it fails if a session does not end
// by itself once its client and its target are gone. It returns how to connect
// to the proxy.
type Start func(tb testing.TB, allow func(target netip.AddrPort) bool) (dial func() Stream)

// Inbound is the suite that every inbound protocol must pass, whoever serves it.
func Inbound(t *testing.T, p Protocol, start Start) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"connect", (*suite).connect},
		{"deny", (*suite).deny},
		{"refused target", (*suite).refused},
		{"client half-closes", (*suite).clientHalfCloses},
		{"target half-closes", (*suite).targetHalfCloses},
		{"slow bytes", (*suite).slowBytes},
		{"garbage", (*suite).garbage},
		{"mutilated opening", (*suite).mutilated},
		{"payload right behind the opening", (*suite).pipelined},
		{"payload and FIN right behind the opening", (*suite).pipelinedFIN},
		{"client resets", (*suite).clientResets},
		{"target resets", (*suite).targetResets},
		{"client vanishes at every step", (*suite).vanishes},
		{"bulk both ways", (*suite).bulk},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{T: t, protocol: p}
			s.dial = start(t, s.allows)
			test.run(s)
		})
	}
}

// suite is one test of it.
type suite struct {
	*testing.T
	protocol Protocol
	dial     func() Stream

	mu      sync.Mutex
	allowed []netip.AddrPort
}

func (s *suite) allows(target netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.allowed {
		if a == target {
			return true
		}
	}
	return false
}

// target returns a new target that the proxy may connect to.
func (s *suite) target() *Target {
	t := NewTarget(s, "127.0.0.1")
	s.allow(t.Addr())
	return t
}

func (s *suite) allow(target netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = append(s.allowed, target)
}

// client connects to the proxy.
func (s *suite) client() Stream {
	c := s.dial()
	guard(s, c)
	return c
}

// answer reads the proxy's answer, which must be the one that is wanted.
func (s *suite) answer(c net.Conn, want bool) {
	s.Helper()
	if granted, err := s.protocol.Answer(c); err != nil || granted != want {
		s.Fatalf("granted: %v, %v; want %v", granted, err, want)
	}
}

// connected opens a session and returns its two far ends.
func (s *suite) connected() (client Stream, far *net.TCPConn) {
	s.Helper()
	t, c := s.target(), s.client()
	Say(s, c, s.protocol.Opening(t.Addr()))
	s.answer(c, true)
	return c, t.Next(s)
}

// works opens a session and talks through it.
func (s *suite) works() {
	s.Helper()
	client, far := s.connected()
	Say(s, client, []byte("ping"))
	Hear(s, far, "ping")
	Say(s, far, []byte("pong"))
	Hear(s, client, "pong")
	client.Close()
	Ends(s, far)
}

func (s *suite) connect() {
	client, far := s.connected()
	for i := range 20 {
		up, down := fmt.Sprintf("up %d", i), fmt.Sprintf("down %d", i)
		Say(s, client, []byte(up))
		Hear(s, far, up)
		Say(s, far, []byte(down))
		Hear(s, client, down)
	}
}

func (s *suite) deny() {
	forbidden := NewTarget(s, "127.0.0.1")
	c := s.client()
	Say(s, c, append(s.protocol.Opening(forbidden.Addr()), "and more"...))
	s.answer(c, false)
	Ends(s, c)
	forbidden.Untouched(s)
	s.works()
}

func (s *suite) refused() {
	nowhere := Nowhere(s)
	s.allow(nowhere)
	c := s.client()
	Say(s, c, s.protocol.Opening(nowhere))
	s.answer(c, false)
	Ends(s, c)
}

func (s *suite) clientHalfCloses() {
	client, far := s.connected()
	Say(s, client, []byte("question"))
	s.finish(client)
	s.hearsAll(far, "question")
	for range 3 {
		Say(s, far, []byte("answer"))
		Hear(s, client, "answer")
	}
	s.finish(far)
	Ends(s, client)
}

func (s *suite) targetHalfCloses() {
	client, far := s.connected()
	Say(s, far, []byte("banner"))
	s.finish(far)
	s.hearsAll(client, "banner")
	for range 3 {
		Say(s, client, []byte("thanks"))
		Hear(s, far, "thanks")
	}
	s.finish(client)
	Ends(s, far)
}

func (s *suite) finish(c Stream) {
	s.Helper()
	if err := c.CloseWrite(); err != nil {
		s.Fatal(err)
	}
}

// hearsAll reads what is wanted, then FIN.
func (s *suite) hearsAll(c io.Reader, want string) {
	s.Helper()
	Hear(s, c, want)
	Ends(s, c)
}

func (s *suite) slowBytes() {
	t, c := s.target(), s.client()
	for _, b := range s.protocol.Opening(t.Addr()) {
		Say(s, c, []byte{b})
	}
	s.answer(c, true)
	far := t.Next(s)
	for _, b := range []byte("byte by byte") {
		Say(s, c, []byte{b})
	}
	s.finish(c)
	s.hearsAll(far, "byte by byte")
}

// garbage: what belongs to no protocol gets no answer at all.
func (s *suite) garbage() {
	if s.protocol.Mute {
		s.works()
		return
	}
	for _, start := range []string{"\x00", "\x01\x01", "\x03\x01\x00\x50\x7f\x00\x00\x01\x00", "\xff\xff\xff\xff", "\x80\x2e\x01", "\n\n\n"} {
		c := s.client()
		_, _ = c.Write([]byte(start)) // the proxy need not wait for all of it
		if rest, err := End(c); len(rest) > 0 || !isEnd(err) {
			s.Errorf("%q: %q, %v; want a silent close", start, rest, err)
		}
	}
	s.works()
}

// mutilated: openings with bytes that were changed, cut out and repeated. What
// they get depends on where they were hit; that they come to an end does not,
// and neither does what others get.
func (s *suite) mutilated() {
	if s.protocol.Mute {
		s.works()
		return
	}
	echo := Echo(s, "127.0.0.1")
	s.allow(echo)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range 200 {
		opening := mutilate(rnd, s.protocol.Opening(echo))
		c := s.client()
		_, _ = c.Write(opening) // the proxy may have closed before the end of it
		_ = c.CloseWrite()
		if _, err := End(c); !isEnd(err) {
			s.Fatalf("seed %d, round %d, %d bytes: %v; want an end", seed, i, len(opening), err)
		}
		c.Close()
	}
	s.works()
}

func mutilate(rnd *rand.Rand, b []byte) []byte {
	for range 1 + rnd.IntN(3) {
		at := rnd.IntN(len(b))
		switch rnd.IntN(3) {
		case 0:
			b[at] = byte(rnd.Uint32())
		case 1:
			b = append(b[:at:at], b[min(len(b), at+1+rnd.IntN(4)):]...)
		case 2:
			b = append(b[:at:at], bytes.Repeat(b[at:], 1+rnd.IntN(300))...)
		}
		if len(b) == 0 {
			b = []byte{0}
		}
	}
	return b[:min(len(b), 4<<10)] // an echo of more would need a client that reads meanwhile
}

func isEnd(err error) bool { return err == nil || errors.Is(err, syscall.ECONNRESET) }

func (s *suite) pipelined() {
	t, c := s.target(), s.client()
	Say(s, c, append(s.protocol.Opening(t.Addr()), "early bird"...))
	far := t.Next(s)
	Hear(s, far, "early bird")
	s.answer(c, true)
	Say(s, c, []byte(" sings"))
	s.finish(c)
	s.hearsAll(far, " sings")
}

func (s *suite) pipelinedFIN() {
	t, c := s.target(), s.client()
	Say(s, c, append(s.protocol.Opening(t.Addr()), "all I have to say"...))
	s.finish(c)
	far := t.Next(s)
	s.hearsAll(far, "all I have to say")
	Say(s, far, []byte("heard"))
	s.finish(far)
	s.answer(c, true)
	s.hearsAll(c, "heard")
}

func (s *suite) clientResets() {
	client, far := s.connected()
	Say(s, client, []byte("half a sent"))
	Hear(s, far, "half a sent")
	Reset(client)
	s.isReset(far)
}

func (s *suite) targetResets() {
	client, far := s.connected()
	Say(s, far, []byte("half a sent"))
	Hear(s, client, "half a sent")
	Reset(far)
	s.isReset(client)
}

func (s *suite) isReset(c io.Reader) {
	s.Helper()
	if rest, err := End(c); !errors.Is(err, syscall.ECONNRESET) {
		s.Fatalf("%d bytes, then %v; want a reset", len(rest), err)
	}
}

// vanishes: after each byte of the opening, and before any, the client leaves,
// by FIN and by RST.
func (s *suite) vanishes() {
	for _, leave := range []func(Stream){func(c Stream) { c.Close() }, Reset} {
		t := s.target()
		opening := s.protocol.Opening(t.Addr())
		for n := range len(opening) + 1 {
			c := s.client()
			Say(s, c, opening[:n])
			leave(c)
		}
		t.ln.Close() // which ends the sessions that came about
	}
	s.works()
}

func (s *suite) bulk() {
	const size = 4 << 20
	client, far := s.connected()
	var wg sync.WaitGroup
	for i, c := range []Stream{client, far} {
		wg.Go(func() {
			if _, err := io.Copy(c, noise(i, size)); err != nil {
				s.Error(err)
			}
			s.finish(c)
		})
		wg.Go(func() {
			want, got := sha256.New(), sha256.New()
			_, _ = io.Copy(want, noise(1-i, size)) // neither end can fail
			n, err := io.Copy(got, c)
			if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				s.Errorf("%d bytes of %d arrived, or others, and %v", n, size, err)
			}
		})
	}
	wg.Wait()
}

// noise is size bytes that only their seed can tell.
func noise(seed, size int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), int64(size))
}
