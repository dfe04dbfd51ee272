//go:build linux

package soak

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// errStalled says that a relay has not ended and does not move.
var errStalled = errors.New("it stalls")

// side is one end of a relay: what both know is who says what, and when.
type side struct {
	conn   *net.TCPConn
	script script
	client bool
	stall  time.Duration
	counts *Counts
	moved  atomic.Int64    // when bytes last moved here, by the clock of the system in ns
	over   <-chan struct{} // closed when no more than what was promised is to be done
}

// play does this side's part, and reports what was not as it must be.
func (s *side) play() error {
	s.moved.Store(time.Now().UnixNano())
	if err := s.bounce(); err != nil {
		return fmt.Errorf("trips: %w", err)
	}
	said, wanted := s.script.up, s.script.down
	waits, resets := s.script.ending == targetFirst, s.script.ending == clientResets
	if !s.client {
		said, wanted = wanted, said
		waits, resets = s.script.ending == clientFirst, s.script.ending == targetResets
	}
	switch {
	case resets:
		// What the other side has not read yet, a reset would take away: it speaks when it has.
		return errors.Join(s.converse(said, wanted, false), s.conn.SetLinger(0), s.conn.Close())
	case s.script.ending == clientResets, s.script.ending == targetResets:
		return firstOf(
			func() error { return s.listen(wanted, false) },
			func() error { return s.say(said, false) },
			func() error { return s.ends(syscall.ECONNRESET) })
	case waits:
		return firstOf(
			func() error { return s.listen(wanted, true) },
			func() error { return s.say(said, true) })
	}
	return s.converse(said, wanted, true)
}

// firstOf does one step after the other, and returns the first fault.
func firstOf(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// converse speaks and listens at once.
func (s *side) converse(said, wanted int64, fin bool) error {
	spoken := make(chan error, 1)
	go func() { spoken <- s.say(said, fin) }()
	err := s.listen(wanted, fin)
	if err != nil {
		s.conn.Close() // nobody waits for what cannot come
	}
	return errors.Join(err, <-spoken)
}

// bounce is the round trips: the client's ball comes back as it was.
func (s *side) bounce() error {
	noise := s.noise(2)
	r := rand.New(rand.NewPCG(s.script.seed, 9))
	ball, back := make([]byte, 64), make([]byte, 64)
	for range s.script.trips {
		if s.client && s.isOver() {
			binary.BigEndian.PutUint64(ball, lastTrip)
		} else if s.client {
			_, _ = noise.Read(ball)
			ball[0] |= 1 // it is not the last one
		}
		if s.client {
			s.rest(pause(r))
			if err := s.write(ball); err != nil {
				return err
			}
		}
		if err := s.read(back); err != nil {
			return err
		}
		if !s.client {
			if err := s.write(back); err != nil {
				return err
			}
		} else if !bytes.Equal(ball, back) {
			return errors.New("another ball comes back")
		}
		s.counts.Trips.Add(1)
		if binary.BigEndian.Uint64(back) == lastTrip {
			break
		}
	}
	return nil
}

func (s *side) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// lastTrip is on the ball where the client wants no more of them than it had.
const lastTrip = 0

// noise is what is said: up is 0, down 1, the balls 2.
func (s *side) noise(stream byte) *rand.ChaCha8 {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], s.script.seed)
	seed[8] = stream
	return rand.NewChaCha8(seed)
}

func (s *side) streams() (out, in byte) {
	if s.client {
		return 0, 1
	}
	return 1, 0
}

// say sends so many bytes, and FIN behind them.
func (s *side) say(count int64, fin bool) error {
	out, _ := s.streams()
	noise, r := s.noise(out), rand.New(rand.NewPCG(s.script.seed, uint64(out)))
	piece := make([]byte, 256<<10)
	for left := count; left > 0; {
		size := int64(len(piece))
		if s.script.manner == haltingly {
			s.rest(pause(r))
			size = 1 + r.Int64N(16<<10)
		}
		next := piece[:min(left, size)]
		_, _ = noise.Read(next) // never fails
		if err := s.write(next); err != nil {
			return fmt.Errorf("%d of %d bytes were said: %w", count-left, count, err)
		}
		left -= int64(len(next))
	}
	if fin {
		return s.conn.CloseWrite()
	}
	return nil
}

// listen takes what the other side says, and its end, and compares.
func (s *side) listen(count int64, fin bool) error {
	_, in := s.streams()
	noise, r := s.noise(in), rand.New(rand.NewPCG(s.script.seed, uint64(in)+5))
	piece, want := make([]byte, 256<<10), make([]byte, 256<<10)
	for left := count; left > 0; {
		if s.script.manner == slowly {
			s.rest(pause(r) / 4)
		}
		next := piece[:min(left, int64(len(piece)))]
		if err := s.read(next); err != nil {
			return fmt.Errorf("%d of %d bytes were heard: %w", count-left, count, err)
		}
		_, _ = noise.Read(want[:len(next)])
		if !bytes.Equal(next, want[:len(next)]) {
			return fmt.Errorf("other bytes than were said, after %d", count-left)
		}
		left -= int64(len(next))
	}
	if !fin {
		return nil
	}
	return s.ends(io.EOF)
}

// ends reads the end, which has to be want.
func (s *side) ends(want error) error {
	n, err := s.readSome(make([]byte, 1))
	if n > 0 || !errors.Is(err, want) {
		return errors.Join(fmt.Errorf("%d bytes in the place of the end, which was to be %w", n, want), err)
	}
	return nil
}

func (s *side) rest(d time.Duration) {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-s.over:
		}
	}
}

func (s *side) read(p []byte) error {
	for len(p) > 0 {
		n, err := s.readSome(p)
		if p = p[n:]; err != nil && len(p) > 0 {
			return err
		}
	}
	return nil
}

// readSome is a Read that waits as long as anything moves on this side.
func (s *side) readSome(p []byte) (int, error) {
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(s.stall))
		n, err := s.conn.Read(p)
		s.count(n)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if s.silent() {
			return 0, errStalled
		}
	}
}

func (s *side) write(p []byte) error {
	for {
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.stall))
		n, err := s.conn.Write(p)
		s.count(n)
		p = p[n:]
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if s.silent() {
			return errStalled
		}
	}
}

func (s *side) count(n int) {
	if n > 0 {
		s.moved.Store(time.Now().UnixNano())
		s.counts.Bytes.Add(int64(n))
	}
}

func (s *side) silent() bool {
	return time.Since(time.Unix(0, s.moved.Load())) >= s.stall
}
