package access

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"sync"
	"time"
)

// watched is a file whose content is taken anew when it changes. Nothing is held
// open. Safe for concurrent use once it is opened.
type watched struct {
	path string
	read func(path string) ([]byte, fs.FileInfo, error) // the error names the file

	checking sync.Mutex // held while the file is looked at
	next     time.Time  // when to look again
	seen     fileState  // of the content that was read last, good or bad
}

// fileState tells one content of a file from another.
type fileState struct {
	info    fs.FileInfo
	sum     [sha256.Size]byte
	settled bool // it was old enough when it was read that a later change shows in info
}

const (
	lookAgain  = time.Second     // the file is not looked at more often by who uses it,
	watchEvery = lookAgain / 2   // and so often by who watches it: what it says holds within a second
	settleTime = 2 * time.Second // the coarsest clock of a file system
)

// open reads the file for the first time.
func (w *watched) open() ([]byte, error) {
	data, state, err := w.load()
	if err != nil {
		return nil, err
	}
	w.seen, w.next = state, time.Now().Add(lookAgain)
	return data, nil
}

// look gives the file's content to take if it has changed, unless somebody looks
// or has looked within a second.
func (w *watched) look(take func(data []byte, err error)) {
	if !w.checking.TryLock() {
		return
	}
	defer w.checking.Unlock()
	if !time.Now().Before(w.next) {
		w.lookNow(take)
	}
}

// lookNow gives the file's content to take if it has changed. That it cannot be
// read is given once. Callers hold checking.
func (w *watched) lookNow(take func(data []byte, err error)) {
	w.next = time.Now().Add(lookAgain)
	info, err := os.Stat(w.path)
	if err == nil && w.seen.settled && sameFile(info, w.seen.info) {
		return
	}
	data, state, err := w.load()
	before := w.seen
	w.seen = state
	switch {
	case err != nil && before.info == nil: // it was told before
	case err == nil && before.info != nil && before.sum == state.sum:
	default:
		take(data, err)
	}
}

func (w *watched) load() ([]byte, fileState, error) {
	data, info, err := w.read(w.path)
	if err != nil {
		return nil, fileState{}, err
	}
	settled := info != nil && time.Since(info.ModTime()) > settleTime
	return data, fileState{info, sha256.Sum256(data), settled}, nil
}

func sameFile(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

// watch calls look every watchEvery until ctx ends.
func watch(ctx context.Context, look func()) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			look()
		case <-ctx.Done():
			return
		}
	}
}
