package daemon

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// logQueue takes a log's lines from whoever writes them and hands them on in a
// goroutine of its own. Writing never waits: a reader of the log that stalls (a
// pager, a journal that hangs) must not hold up sessions. What does not fit is
// lost, and said to be.
type logQueue struct {
	lost   atomic.Int64  // since it was last said
	inAll  atomic.Int64  // that were lost
	wake   chan struct{} // there are lines where there were none; closed when there will be no more
	ending chan struct{} // closed with wake: nobody pauses any more
	ended  chan struct{}

	mu     sync.Mutex
	lines  []byte // those that wait, behind what of it was handed on
	handed int    // bytes of lines
	count  int    // how many wait
	closed bool

	// Of the goroutine alone.
	batch []byte
	next  time.Time // when to write again
}

// Bounds of a log whose reader is slow.
const (
	logQueueLines = 8192
	logQueueBatch = 32 << 10              // bytes in one write
	logQueueKept  = 1 << 20               // bytes that are kept for lines to come
	logQueuePause = 10 * time.Millisecond // between two writes: a busy log is written in few
	logQueueEnd   = 2 * time.Second       // what it gets to take the last lines
)

// newLogQueue starts handing lines to w. sayLost writes to w, at once, that so
// many lines were lost. close must be called.
func newLogQueue(w io.Writer, sayLost func(lines int64)) *logQueue {
	q := &logQueue{wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(q.ended)
		for more := true; more; _, more = <-q.wake {
			q.drain(w, sayLost)
		}
	}()
	return q
}

// drain hands on what there is, and what comes meanwhile.
func (q *logQueue) drain(w io.Writer, sayLost func(lines int64)) {
	for {
		q.pause(time.Until(q.next))
		count, more := q.take()
		if count == 0 {
			return
		}
		if q.next = time.Now().Add(logQueuePause); more {
			q.next = time.Time{}
		}
		q.hand(w, count, sayLost)
	}
}

// hand writes the batch, of so many lines, to w. That may fail: a full disk may be mended.
func (q *logQueue) hand(w io.Writer, count int64, sayLost func(lines int64)) {
	if _, err := w.Write(q.batch); err != nil {
		q.lose(count)
		return
	}
	if lost := q.lost.Swap(0); lost > 0 {
		sayLost(lost)
	}
}

// pause lets lines gather.
func (q *logQueue) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.ending:
	}
}

// take makes a batch of the lines that wait, up to logQueueBatch or one that is longer, so
// that a busy log is one write for many of them. It returns how many they are, and
// whether there are more.
func (q *logQueue) take() (count int64, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.lines[q.handed:]
	size := len(waiting)
	if size > logQueueBatch {
		if size = bytes.LastIndexByte(waiting[:logQueueBatch], '\n') + 1; size == 0 {
			size = bytes.IndexByte(waiting, '\n') + 1
		}
	}
	q.batch, waiting = append(q.batch[:0], waiting[:size]...), waiting[size:]
	count = int64(bytes.Count(q.batch, []byte{'\n'}))
	q.handed = len(q.lines) - len(waiting)
	q.count -= int(count)
	switch {
	case len(waiting) > 0 && q.handed < logQueueKept:
	case cap(q.lines) > 2*logQueueKept:
		q.lines, q.handed = bytes.Clone(waiting), 0
	default:
		q.lines, q.handed = q.lines[:copy(q.lines, waiting)], 0
	}
	return count, len(waiting) > 0
}

// Write takes one line, which ends with a line break and has no other. It is safe for concurrent use, and never fails.
// After close, lines are lost: a signal may still have something to say.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
	case q.count >= logQueueLines:
		q.lose(1)
	default:
		none := len(q.lines) == q.handed
		q.lines = append(q.lines, line...)
		if q.count++; none {
			select {
			case q.wake <- struct{}{}:
			default: // it has not been heard yet
			}
		}
	}
	return len(line), nil
}

func (q *logQueue) lose(lines int64) {
	q.lost.Add(lines)
	q.inAll.Add(lines)
}

// close waits for the last lines, for a while. It is called once.
func (q *logQueue) close() {
	q.mu.Lock()
	q.closed = true
	close(q.wake)
	close(q.ending)
	q.mu.Unlock()
	timer := time.NewTimer(logQueueEnd)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C: // the reader has stalled; its lines are lost with the process
	}
}
