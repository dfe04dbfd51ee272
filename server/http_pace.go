package server

import (
	"os"
	"time"
)

// pace is how fast one direction of a forwarded request may go.
type pace struct {
	pacer  Pacer           // nil: as fast as it goes
	over   <-chan struct{} // closed when nothing more is to wait
	begun  bool            // something was moved already
	paused func(bool)      // told of each pause when it begins, at least once a second while it lasts, and when it ends
}

// pieces hands out b in the pieces that the pacer allows, with the pauses between
// them. What is over neither waits nor writes any more: it fails as if its deadline
// had passed, which is about to be so.
func (p *pace) pieces(b []byte, write func([]byte) error) error {
	if p.pacer == nil {
		return write(b)
	}
	if !p.begun {
		p.begun = true
		p.pause(0)
	}
	for len(b) > 0 {
		n := min(len(b), p.pacer.Chunk())
		if err := write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		p.pause(n)
		if len(b) > 0 && isClosed(p.over) {
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

// pause waits for as long as n bytes demand.
func (p *pace) pause(n int) {
	left := p.pacer.Took(n)
	if left <= 0 {
		return
	}
	defer p.paused(false)
	for ; left > 0; left -= time.Second {
		p.paused(true)
		timer := time.NewTimer(min(left, time.Second))
		select {
		case <-timer.C:
		case <-p.over:
			timer.Stop()
			return
		}
	}
}
