package daemon

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/server"
)

// accessLog writes a line for each session to a file of its own, when it has ended. It is
// a [server.Recorder]; nobody waits for the file. The zero value writes nothing.
type accessLog struct {
	mu    sync.RWMutex
	now   *accessFile // nil: none
	ended int64       // lines that were lost of the files before
}

// accessFile is a file, the queue before it, and how lines look.
type accessFile struct {
	path   string
	file   *rotatingFile
	queue  *logQueue
	format lineFormat
}

// openAccess opens what the settings say; nil: they say none. It must be closed.
func openAccess(l config.Log, log *slog.Logger) (*accessFile, error) {
	if l.Access == "" {
		return nil, nil
	}
	format, err := newAccessFormat(l.AccessFormat)
	if err != nil {
		return nil, err
	}
	a := &accessFile{path: l.Access, format: format}
	if a.file, err = openRotatingFile(l.Access, rotationOf(l), func(msg string, err error) { log.Error(msg, "file", l.Access, "error", err) }); err != nil {
		return nil, errors.Join(errors.New("the access log cannot be opened"), err)
	}
	a.queue = newLogQueue(a.file, func(lines int64) {
		log.Warn("lines of the access log were lost: its disk was full, or is too slow", "file", l.Access, "lines", lines)
	})
	return a, nil
}

func rotationOf(l config.Log) rotation { return rotation{l.AccessSize, l.AccessAge, l.AccessKeep} }

// close writes what is left. It may take a while, and is for when nobody writes any more.
func (a *accessFile) close() {
	if a != nil {
		a.queue.close()
		a.file.close()
	}
}

// Opened writes nothing: a session's one line tells its end.
func (*accessLog) Opened(*server.Session) {}

// Closed writes the line.
func (l *accessLog) Closed(s *server.Session, reason error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.now != nil {
		l.now.queue.add(endOf(s, reason, l.now.format))
	}
}

// next returns what is to be written to by other settings: what is, where it is the same
// file, else another that is opened.
func (l *accessLog) next(settings config.Log, log *slog.Logger) (*accessFile, error) {
	l.mu.RLock()
	now := l.now
	l.mu.RUnlock()
	if now == nil || now.path != settings.Access {
		return openAccess(settings, log)
	}
	format, err := newAccessFormat(settings.AccessFormat)
	if err != nil {
		return nil, err
	}
	return &accessFile{path: now.path, file: now.file, queue: now.queue, format: format}, nil
}

// set has lines written to next, and returns what is to be closed; nil: nothing.
func (l *accessLog) set(next *accessFile, by config.Log) (before *accessFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.now = l.now, next
	if next != nil {
		next.file.setRules(rotationOf(by))
	}
	if before == nil || next != nil && next.queue == before.queue {
		return nil
	}
	l.ended += before.queue.inAll.Load()
	return before
}

// isOf reports whether a is what is written to, or writes to the same.
func (l *accessLog) isOf(a *accessFile) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return a == nil || l.now != nil && l.now.queue == a.queue
}

// lost returns how many lines were.
func (l *accessLog) lost() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.now == nil {
		return l.ended
	}
	return l.ended + l.now.queue.inAll.Load()
}

// reopen begins the file anew; false: there is none.
func (l *accessLog) reopen() (bool, error) {
	l.mu.RLock()
	now := l.now
	l.mu.RUnlock()
	if now == nil {
		return false, nil
	}
	return true, now.file.reopen()
}

// ReopenLogs is what USR1 does: it begins the files of logs anew, which somebody may have
// renamed. How that went is in the log.
func (d *Daemon) ReopenLogs() {
	switch there, err := d.access.reopen(); {
	case err != nil:
		d.log.Error("the access log cannot be begun anew: the file before goes on", "error", err)
	case there:
		d.log.Info("the access log was begun anew")
	default:
		d.log.Info("USR1: there is no access log to begin anew")
	}
}
