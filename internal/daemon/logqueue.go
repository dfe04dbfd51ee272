package daemon

import (
	"io"
	"sync/atomic"
	"time"
)

// logQueue takes a log's lines from whoever writes them and hands them on in a
// goroutine of its own. Writing never waits: a reader of the log that stalls (a
// pager, a journal that hangs) must not hold up sessions. What does not fit is
// lost, and said to be.
type logQueue struct {
	lines chan []byte
	lost  atomic.Int64
	ended chan struct{}
}

// Bounds of a log whose reader is slow.
const (
	logQueueLines = 8192
	logQueueEnd   = 2 * time.Second // what it gets to take the last lines
)

// newLogQueue starts handing lines to w. sayLost writes to w, at once, that so
// many lines were lost. close must be called.
func newLogQueue(w io.Writer, sayLost func(lines int64)) *logQueue {
	q := &logQueue{lines: make(chan []byte, logQueueLines), ended: make(chan struct{})}
	go func() {
		defer close(q.ended)
		for line := range q.lines {
			if _, err := w.Write(line); err != nil {
				q.lost.Add(1) // a full disk; it may be mended
				continue
			}
			if lost := q.lost.Swap(0); lost > 0 {
				sayLost(lost)
			}
		}
	}()
	return q
}

// Write takes one line. It is safe for concurrent use, and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

// close waits for the last lines, for a while. Nothing may be written any more.
func (q *logQueue) close() {
	close(q.lines)
	timer := time.NewTimer(logQueueEnd)
	defer timer.Stop()
	select {
	case <-q.ended:
	case <-timer.C: // the reader has stalled; its lines are lost with the process
	}
}
