package datagram

import (
	"io"
	"sync"
)

// Bounds of what waits until the stream takes it.
const (
	room  = 256 << 10 // bytes
	share = room / 2  // of one visitor
	keep  = 64 << 10  // of memory, while nothing waits
)

// Queue is what is to go out on a stream: frames that wait, or are lost where there is
// no room. Make one with [NewQueue]. Safe for concurrent use; nobody but Run blocks.
type Queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	of      map[uint32]int // bytes that wait, by visitor
	closed  bool
}

// NewQueue returns an empty Queue.
func NewQueue() *Queue {
	q := &Queue{of: map[uint32]int{}}
	q.changed.L = &q.mu
	return q
}

// Put has a datagram sent, and reports whether there was room for it. It keeps nothing
// of the payload.
func (q *Queue) Put(visitor uint32, payload []byte) bool {
	return q.put(Frame{Visitor: visitor, Payload: payload})
}

// End has the other end told that a visitor has gone. Where there is no room for that,
// it has to find out by itself.
func (q *Queue) End(visitor uint32) { q.put(Frame{Visitor: visitor, End: true}) }

func (q *Queue) put(f Frame) bool {
	size := header + len(f.Payload)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(f.Payload) > MaxPayload || len(q.waiting)+size > room || q.of[f.Visitor]+size > share {
		return false
	}
	q.waiting = f.Append(q.waiting)
	q.of[f.Visitor] += size
	if len(q.waiting) == size {
		q.changed.Signal()
	}
	return true
}

// Run writes to the stream what is put, until a write fails, or Close is called, which
// a write that blocks does not notice. Call it once.
func (q *Queue) Run(stream io.Writer) error {
	var sent []byte
	for {
		if cap(sent) > keep {
			sent = nil
		}
		sent = q.take(sent[:0])
		if sent == nil {
			return nil
		}
		if _, err := stream.Write(sent); err != nil {
			q.Close()
			return err
		}
	}
}

// take waits for something to send, which it exchanges for the memory in spare; nil:
// the queue is closed.
func (q *Queue) take(spare []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.changed.Wait()
	}
	if q.closed {
		return nil
	}
	all := q.waiting
	q.waiting = spare
	clear(q.of)
	return all
}

// Close takes nothing more. It may be called again.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.waiting, q.of = true, nil, nil
	q.changed.Signal()
}
