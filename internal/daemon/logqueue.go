package daemon

import (
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
	lines  chan []byte
	lost   atomic.Int64  // since it was last said
	inAll  atomic.Int64  // that were lost
	ending chan struct{} // closed with lines: nobody pauses any more
	ended  chan struct{}

	mu     sync.Mutex
	closed bool // lines is closed
}

// Bounds of a log whose reader is slow.
const (
	logQueueLines = 8192
	logQueueBatch = 32 << 10              // bytes in one write
	logQueuePause = 10 * time.Millisecond // between two writes: a busy log is written in few
	logQueueEnd   = 2 * time.Second       // what it gets to take the last lines
)

// newLogQueue starts handing lines to w. sayLost writes to w, at once, that so
// many lines were lost. close must be called.
func newLogQueue(w io.Writer, sayLost func(lines int64)) *logQueue {
	q := &logQueue{lines: make(chan []byte, logQueueLines), ending: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(q.ended)
		var next time.Time // when to write again
		for line := range q.lines {
			q.pause(time.Until(next))
			lines, count := q.more(line)
			if next = time.Now().Add(logQueuePause); len(lines) >= logQueueBatch {
				next = time.Time{} // there is more
			}
			if _, err := w.Write(lines); err != nil {
				q.lose(count) // a full disk; it may be mended
				continue
			}
			if lost := q.lost.Swap(0); lost > 0 {
				sayLost(lost)
			}
		}
	}()
	return q
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

// more puts the lines that wait already behind line, up to logQueueBatch, so
// that a busy log is one write for many of them. It returns how many they are.
func (q *logQueue) more(line []byte) (lines []byte, count int64) {
	for count = 1; len(line) < logQueueBatch; count++ {
		select {
		case next, ok := <-q.lines:
			if !ok {
				return line, count
			}
			line = append(line, next...)
		default:
			return line, count
		}
	}
	return line, count
}

// Write takes one line. It is safe for concurrent use, and never fails. After
// close, lines are lost: a signal may still have something to say.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return len(line), nil
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.lose(1)
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
	close(q.lines)
	close(q.ending)
	q.mu.Unlock()
	timer := time.NewTimer(logQueueEnd)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C: // the reader has stalled; its lines are lost with the process
	}
}
