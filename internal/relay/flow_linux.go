package relay

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

const (
	// eventShare is how much a flow moves before all others of its loop have their turn, in bytes.
	eventShare = 4 << 20

	// callMost is how much is read by one system call, in bytes.
	callMost = pipeSize

	// bulkFrom is how much a read must bring for the next one to be for bulk, in bytes: for less, one read and one write through
	// memory are cheaper than two splices.
	bulkFrom = 16 << 10
)

// flow is one direction of a record: what it reads from one side it writes to the other, and it reads nothing more before all of
// that is written, which is the whole of back-pressure.
type flow struct {
	stock  *stock        // what was read and not written yet, and what it is read into while bulk flows; nil: neither
	resume time.Duration // until when its pacer makes it pause, by the loop's clock; 0: it does not
	bulk   bool          // the last read brought much
	ended  bool          // by a FIN that was passed on
	asked  bool          // the loop tells when there is room where it writes to
}

// stock is a pipe or memory with what is in it.
type stock struct {
	pipe *pipe   // nil: memory
	mem  *[]byte // borrowed; nil: rest lies in somebody else's
	rest []byte  // what is in memory and not written yet
}

// full reports whether there is anything in s.
func (s *stock) full() bool { return s != nil && (len(s.rest) > 0 || s.pipe != nil && s.pipe.held > 0) }

// forBulk reports whether s is what bulk is read into.
func (s *stock) forBulk() bool {
	return s.pipe != nil || s.mem != nil && len(*s.mem) == bufferSizes[len(bufferSizes)-1]
}

// bulkStock returns a pipe, or large memory where there is none to be had.
func bulkStock() *stock {
	if p := borrowPipe(); p != nil {
		return &stock{pipe: p}
	}
	return &stock{mem: borrowMemory(len(bufferSizes) - 1)}
}

// stockOf returns a copy of p.
func stockOf(p []byte) *stock {
	class := 0
	for bufferSizes[class] < len(p) {
		class++
	}
	s := &stock{mem: borrowMemory(class)}
	s.rest = (*s.mem)[:copy(*s.mem, p)]
	return s
}

// fill reads up to most bytes from a socket into the empty s.
func (s *stock) fill(socket, most int) (int, error) {
	if s.pipe != nil {
		return s.pipe.fill(socket, most)
	}
	mem := (*s.mem)[:min(most, len(*s.mem))]
	n, err := engine.Read(socket, mem)
	s.rest = mem[:max(0, n)]
	return n, err
}

// drain writes up to most bytes of s to a socket.
func (s *stock) drain(socket, most int) (int, error) {
	if s.pipe != nil {
		return s.pipe.drain(socket)
	}
	n, err := engine.Write(socket, s.rest[:min(most, len(s.rest))])
	s.rest = s.rest[max(0, n):]
	return n, err
}

// giveBack returns what the flow holds to where it was borrowed.
func (f *flow) giveBack() {
	s := f.stock
	f.stock = nil
	if s == nil {
		return
	}
	if s.pipe != nil {
		s.pipe.giveBack()
	}
	if s.mem != nil {
		giveBackMemory(s.mem)
	}
}

// pacer returns that of a flow, or nil.
func (r *record) pacer(i int) Pacer {
	if i == 0 {
		return r.limits.Up
	}
	return r.limits.Down
}

// pause makes a flow pause.
func (r *record) pause(i int, wait time.Duration) {
	if wait > 0 {
		r.flows[i].resume = r.loop().Now() + min(wait, ages)
		r.schedule()
	}
}

// move moves what a flow can move now, or its share of it: then there is more. It leaves no memory and no pipe behind that nothing
// is in.
func (r *record) move(i int) (more bool, err error) {
	f := &r.flows[i]
	left := eventShare
	for left > 0 {
		n, err := r.step(i)
		if err != nil {
			return false, err
		}
		if n == 0 {
			break
		}
		left -= n
	}
	if f.stock != nil && !f.stock.full() {
		f.giveBack()
	}
	return left <= 0, nil
}

// step moves one piece, and returns of how many bytes; 0: it must wait, or has ended.
func (r *record) step(i int) (int, error) {
	f, from, to := &r.flows[i], &r.sides[i], &r.sides[1-i]
	stocked := f.stock.full()
	if f.ended || f.resume > 0 || !to.writable || !stocked && !from.readable || r.ending.Load() {
		return 0, nil
	}
	most := callMost
	pacer := r.pacer(i)
	if pacer != nil {
		most = min(most, pacer.Chunk())
	}
	var little []byte
	if !stocked {
		var err error
		if little, err = r.read(i, most); err != nil || len(little) == 0 && !f.stock.full() {
			return 0, err
		}
	}
	n, err := r.write(i, little, most)
	if pacer != nil && n > 0 {
		r.pause(i, pacer.Took(n))
	}
	return n, err
}

// read reads what there is, up to most bytes: bulk into the flow's stock, and little into the loop's memory, of which it returns
// what it has read. Where nothing has come neither has any.
func (r *record) read(i, most int) (little []byte, err error) {
	f, from := &r.flows[i], &r.sides[i]
	var n, room int
	if f.bulk {
		if f.stock == nil {
			f.stock = bulkStock()
		}
		room = most + 1 // a pipe may be full before
		n, err = f.stock.fill(int(from.fd), most)
	} else {
		little = r.loop().Scratch()
		little = little[:min(most, len(little))]
		room = len(little)
		n, err = engine.Read(int(from.fd), little)
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		from.readable = false
		return nil, nil
	case err != nil:
		return nil, faultOf(resets[i], os.NewSyscallError("read", err))
	case n == 0:
		return nil, r.finish(i)
	}
	if n < room && !f.bulk && !from.probe {
		from.readable = false // there is no more: what comes will be told
	}
	if f.bulk {
		little = nil
	} else {
		little = little[:n]
	}
	f.bulk = n >= bulkFrom
	r.last = r.loop().Now() // what was read counts, too, lest a limit ends the relay before it is written
	return little, nil
}

// write writes what was read: little, or else the flow's stock, up to most bytes of it. What there is no room for stays in stock.
func (r *record) write(i int, little []byte, most int) (int, error) {
	f, to := &r.flows[i], &r.sides[1-i]
	var n int
	var err error
	if len(little) > 0 {
		n, err = engine.Write(int(to.fd), little)
	} else {
		n, err = f.stock.drain(int(to.fd), most)
	}
	n = max(0, n)
	if n < len(little) {
		f.stock = stockOf(little[n:])
	}
	switch {
	case errors.Is(err, unix.EAGAIN):
		to.writable = false
		if !f.asked {
			f.asked = true
			r.loop().AwaitRoom(to.handle)
		}
		return 0, nil
	case err != nil:
		return 0, faultOf(resets[1-i], os.NewSyscallError("write", err))
	}
	if f.stock != nil && !f.stock.full() && !(f.bulk && f.stock.forBulk()) {
		f.giveBack()
	}
	r.count(i, n)
	return n, nil
}

// count notes that n bytes were moved.
func (r *record) count(i, n int) {
	if i == 0 {
		r.meter.up.Add(int64(n))
	} else {
		r.meter.down.Add(int64(n))
	}
	r.last = r.loop().Now()
}

// finish passes on the FIN of a side, after its last byte.
func (r *record) finish(i int) error {
	if err := r.pendingError(i); err != nil { // it has reset right behind its FIN
		return err
	}
	r.flows[i].ended, r.half, r.last = true, true, r.loop().Now()
	if r.flows[1-i].ended {
		return nil // it is closed at once, which says the same
	}
	r.schedule()
	if err := engine.Shut(int(r.sides[1-i].fd)); err != nil {
		return faultOf(resets[1-i], os.NewSyscallError("shutdown", err))
	}
	return nil
}
