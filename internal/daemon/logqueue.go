package daemon

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/server"
)

// logQueue takes a log's lines from whoever writes them and hands them on in a
// goroutine of its own. Writing never waits: a reader of the log that stalls (a
// pager, a journal that hangs) must not hold up sessions. What does not fit is
// lost, and said to be.
//
// Of a session that is over it takes what a line is made of. The lines are made by that
// goroutine, many one after the other: one by itself takes longer, since what makes it is
// not in the processor's caches any more. Only where more sessions wait than the queue is
// to keep are they made by whoever adds one.
type logQueue struct {
	lost   atomic.Int64  // since it was last said
	inAll  atomic.Int64  // that were lost
	wake   chan struct{} // there are lines where there were none; closed when there will be no more
	ending chan struct{} // closed with wake: nobody pauses any more
	ended  chan struct{}

	mu       sync.Mutex
	lines    []byte  // those that wait, behind what of it was handed on
	handed   int     // bytes of lines
	sessions []ended // those whose lines are not made yet, and come behind all that is in lines
	count    int     // how many lines wait, with those
	closed   bool
	stamp    stamp // of lines that are made here

	// Of the goroutine alone.
	batch []byte
	taken []ended   // those whose lines are to be in the batch
	own   stamp     // of these
	next  time.Time // when to write again
}

// ended is a session that is over, and of which nothing changes any more.
type ended struct {
	*server.Session
	at     time.Time
	reason server.Reason
	detail string     // what there is to say beyond that word
	format lineFormat // how its line is made
}

// endOf returns a session that ends now.
func endOf(s *server.Session, reason error, format lineFormat) ended {
	return ended{s, time.Now(), server.ReasonOf(reason), detailOf(reason), format}
}

// lineFormat appends the line of a session that is over, with its line end. The stamp is
// that of the line before.
type lineFormat func(line []byte, stamp *stamp, s *ended) []byte

// appendLine appends the line of s. A fault of ours in making it costs that line, and not the process.
func (s *ended) appendLine(lines []byte, stamp *stamp) (all []byte) {
	defer func() {
		if fault := recover(); fault != nil {
			all = fmt.Appendf(lines, "level=ERROR msg=\"a fault in the line of a session; please report it\" id=%d fault=%q\n", s.ID, fmt.Sprint(fault))
		}
	}()
	return s.format(lines, stamp, s)
}

// Bounds of a log whose reader is slow.
const (
	logQueueLines    = 8192
	logQueueSessions = 256                   // whose lines are not made yet: they keep more memory than a line
	logQueueBatch    = 32 << 10              // bytes in one write
	logQueueKept     = 1 << 20               // bytes that are kept for lines to come
	logQueuePause    = 10 * time.Millisecond // between two writes: a busy log is written in few
	logQueueEnd      = 2 * time.Second       // what it gets to take the last lines
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
// that a busy log is one write for many of them; behind the last of them come those of the
// sessions. It returns how many they are, and whether there are more.
func (q *logQueue) take() (count int64, more bool) {
	count, more = q.takeMade()
	for i := range q.taken {
		s := &q.taken[i]
		q.batch = s.appendLine(q.batch, &q.own)
	}
	count += int64(len(q.taken))
	clear(q.taken) // nobody else has these sessions any more
	return count, more
}

// takeMade is take of the lines that are made, and takes the sessions if no lines are left.
func (q *logQueue) takeMade() (count int64, more bool) {
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
	q.taken = q.taken[:0]
	if len(waiting) == 0 {
		q.taken, q.sessions = q.sessions, q.taken
		q.count -= len(q.taken)
	}
	return count, len(waiting) > 0
}

// Write takes one line, which ends with a line break and has no other. It is safe for concurrent use, and never fails.
// After close, lines are lost: a signal may still have something to say.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.admit() {
		q.settle()
		q.lines = append(q.lines, line...)
	}
	return len(line), nil
}

// add is Write of the line of a session.
func (q *logQueue) add(s ended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.admit() {
		return
	}
	if len(q.sessions) == logQueueSessions { // they come too fast, or are not taken
		q.settle()
	}
	q.sessions = append(q.sessions, s)
}

// admit counts one more line, if there is room for it, which the caller adds. Callers hold mu.
func (q *logQueue) admit() bool {
	switch {
	case q.closed:
		return false
	case q.count >= logQueueLines:
		q.lose(1)
		return false
	}
	q.count++
	if none := len(q.lines) == q.handed && len(q.sessions) == 0; none {
		select {
		case q.wake <- struct{}{}:
		default: // it has not been heard yet
		}
	}
	return true
}

// settle makes the lines of the sessions that wait. Callers hold mu.
func (q *logQueue) settle() {
	for i := range q.sessions {
		s := &q.sessions[i]
		q.lines = s.appendLine(q.lines, &q.stamp)
	}
	clear(q.sessions)
	q.sessions = q.sessions[:0]
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
