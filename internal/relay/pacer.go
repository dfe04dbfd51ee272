package relay

import "time"

// Pacer says how fast one direction may go. It never waits itself: it is asked after each chunk how long to pause before
// the next one, so that the pause is the relay's, and ends with it. One goroutine at a time uses it.
type Pacer interface {
	// Chunk returns how much may be moved before Took is called, in bytes, at least 1.
	Chunk() int
	// Took counts n bytes that were moved, and returns for how long no more may follow. It is first called with 0,
	// before anything is moved.
	Took(n int) time.Duration
}

// pause waits until d may go on by its pacer, which has moved n bytes, or the session is over. It holds no memory
// meanwhile.
func (d *direction) pause(n int) {
	wait := d.pacer.Took(n)
	if wait <= 0 {
		return
	}
	d.buf.giveBack()
	d.paused.Store(true) // before watch: whoever looks must not take it for silence
	defer d.paused.Store(false)
	d.session.watch(d)
	defer d.deaf.Store(false)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.session.ended:
	}
	d.session.touch()
}

// begin sends what was read before the relay, in the pieces that the pacer allows.
func (d *direction) begin() error {
	head := d.head
	d.head = nil
	if d.pacer == nil {
		return d.send(head)
	}
	d.pause(0)
	for len(head) > 0 {
		n := min(len(head), d.pacer.Chunk())
		if err := d.send(head[:n]); err != nil {
			return err
		}
		head = head[n:]
		d.pause(n)
	}
	return nil
}

// room sees to it that the next read takes no more than the pacer allows.
func (d *direction) room() {
	if d.pacer != nil {
		d.buf.most = d.pacer.Chunk()
	}
}
