package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
)

// stalling is a log's reader that stalls until it is let go on.
type stalling struct {
	bytes.Buffer
	goOn chan struct{}
}

func (s *stalling) Write(p []byte) (int, error) {
	<-s.goOn
	return s.Buffer.Write(p)
}

func TestLogNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stalling{goOn: make(chan struct{})}
		log := newLogger(stream{Writer: w}, config.Log{Format: "text"})
		for i := range 2 * logQueueLines {
			log.Info("line", "n", i)
		}
		close(w.goOn)
		synctest.Wait()
		log.queue.close()
		lines := strings.Count(w.String(), "msg=line")
		inHand := logQueueBatch/len("msg=line") + 1 // of the write that stalled, at the most
		if lines < logQueueLines || lines > logQueueLines+inHand {
			t.Errorf("%d lines arrived, want the %d that fit and those of one write", lines, logQueueLines)
		}
		if want := fmt.Sprintf("lines=%d", 2*logQueueLines-lines); strings.Count(w.String(), "lines of the log were lost") != 1 || !strings.Contains(w.String(), want) {
			t.Errorf("it does not say once that lines were lost, %s", want)
		}
	})
}

func TestLogThatStaysStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stalling{goOn: make(chan struct{})}
		log := newLogger(stream{Writer: w}, config.Log{Format: "json"})
		log.Info("line")
		start := time.Now()
		log.queue.close()
		if took := time.Since(start); took != logQueueEnd {
			t.Errorf("the end took %v, want %v", took, logQueueEnd)
		}
		close(w.goOn)
	})
}

// TestSessionsInTheLog: however many end, and whatever else is logged between, while the
// reader stalls: lines come in their order, nobody waits, those that do not fit are counted,
// and each is as the settings were when its session ended.
func TestSessionsInTheLog(t *testing.T) {
	for _, sessions := range []int{1, logQueueSessions, 3*logQueueSessions + 1, 2 * logQueueLines} {
		t.Run(fmt.Sprint(sessions), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSessionsInTheLog(t, sessions) })
		})
	}
}

func testSessionsInTheLog(t *testing.T, sessions int) {
	t.Helper()
	w := &stalling{goOn: make(chan struct{})}
	log := newLogger(stream{Writer: w}, config.Log{Format: "text"})
	log.Info("first")
	synctest.Wait() // its write stalls
	var want []string
	for id := range sessions {
		if id%5 == 4 {
			log.Info("another", "id", id)
			want = append(want, fmt.Sprintf("level=INFO msg=another id=%d", id))
			continue
		}
		log.sessions.Closed(server.NewSession(server.Record{ID: uint64(id)}), nil)
		want = append(want, fmt.Sprintf("level=INFO msg=session id=%d ", id))
	}
	log.set(config.Log{Format: "json"})
	if n := len(log.queue.sessions); n > logQueueSessions {
		t.Errorf("%d sessions are kept", n)
	}
	close(w.goOn)
	log.queue.close()
	want = want[:min(sessions, logQueueLines)]
	lines := slices.DeleteFunc(strings.SplitAfter(w.String(), "\n"), func(line string) bool {
		return line == "" || strings.Contains(line, "msg=first") || strings.Contains(line, "were lost")
	})
	if lost := log.queue.inAll.Load(); lost != int64(sessions-len(want)) || len(lines) != len(want) {
		t.Fatalf("%d lines, %d are said to be lost, of %d", len(lines), lost, sessions)
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) {
			t.Fatalf("line %d is %q, want %q", i, line, want[i])
		}
	}
}

// TestFaultInALine: it costs that line, whoever makes it, and neither the process nor another line.
func TestFaultInALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stalling{goOn: make(chan struct{})}
		q := newLogQueue(w, func(int64) {})
		const sessions = logQueueSessions + 2 // the first ones in the time of who adds one more
		for id := range sessions {
			q.add(endOf(server.NewSession(server.Record{ID: uint64(id)}), nil, func(line []byte, _ *stamp, s *ended) []byte {
				if s.ID%2 == 1 {
					panic("odd")
				}
				return fmt.Appendf(append(line, "half"...), " of %d\n", s.ID)
			}))
		}
		close(w.goOn)
		q.close()
		lines := strings.SplitAfter(strings.TrimSuffix(w.String(), "\n"), "\n")
		if len(lines) != sessions || q.inAll.Load() != 0 {
			t.Fatalf("%d lines of %d, %d are said to be lost", len(lines), sessions, q.inAll.Load())
		}
		for id, line := range lines {
			if want := []string{fmt.Sprintf("half of %d", id), fmt.Sprintf("id=%d fault=\"odd\"", id)}[id%2]; !strings.Contains(line, want) {
				t.Errorf("line %d is %q, want %q", id, line, want)
			}
		}
	})
}

// full is a disk that is full until it is not.
type full struct {
	bytes.Buffer
	fails int
}

func (f *full) Write(p []byte) (int, error) {
	if f.fails--; f.fails >= 0 {
		return 0, errors.New("no space left on device")
	}
	return f.Buffer.Write(p)
}

func TestLogOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &full{fails: 3}
		log := newLogger(stream{Writer: w}, config.Log{Format: "text"})
		for range 5 {
			log.Info("line")
			time.Sleep(logQueuePause) // or they would be one write
			synctest.Wait()
		}
		log.queue.close()
		if said := w.String(); strings.Count(said, "msg=line") != 2 || !strings.Contains(said, "lines=3") {
			t.Errorf("the log has %q, want two lines and that three were lost", said)
		}
	})
}

// writes counts them.
type writes struct {
	stalling
	count int
}

func (w *writes) Write(p []byte) (int, error) {
	n, err := w.stalling.Write(p)
	w.count++
	return n, err
}

// TestLogInBatches: the lines that came while the reader was busy are one write.
func TestLogInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &writes{stalling: stalling{goOn: make(chan struct{})}}
		log := newLogger(stream{Writer: w}, config.Log{Format: "text"})
		log.Info("first")
		synctest.Wait() // it is not held back
		for range 100 {
			log.Info("line")
		}
		close(w.goOn)
		log.queue.close()
		if lines := strings.Count(w.String(), "msg=line\n"); lines != 100 || w.count != 2 {
			t.Errorf("%d lines in %d writes, want 100 in 2", lines, w.count)
		}
	})
}

// TestLogAfterItsEnd: HUP may come when all else has ended.
func TestLogAfterItsEnd(t *testing.T) {
	var w bytes.Buffer
	log := newLogger(stream{Writer: &w}, config.Log{Format: "text"})
	log.Info("before")
	log.queue.close()
	log.Info("after")
	if said := w.String(); !strings.Contains(said, "before") || strings.Contains(said, "after") {
		t.Errorf("the log has %q", said)
	}
}
