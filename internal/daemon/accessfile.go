package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// rotation says when another file is begun. The zero value: never.
type rotation struct {
	size int64         // in bytes
	age  time.Duration // a file is for one span of so long, counted from 1970 in UTC
	keep int           // files besides the one that is written; 0: all
}

// rotatingFile is a file that lines are appended to. What is full, or of another span of
// time, is renamed to NAME.20061102T150405.000 (UTC), and another is begun. Safe for
// concurrent use.
type rotatingFile struct {
	path   string
	say    func(msg string, err error) // what a person should know of; it must not wait
	wanted atomic.Pointer[rotation]    // the rules from the next write on; nil: those that there are

	callers atomic.Int32            // who wait for mu
	writing atomic.Pointer[os.File] // what is written to by who holds it; nil: nothing

	mu      sync.Mutex // Write holds it while the reader of a pipe stalls: others call lock
	rules   rotation
	file    *os.File
	written int64 // bytes in it
	span    int64 // that it is for
	torn    bool  // its last line is not whole
	failing bool  // the last write failed, and that was said
}

// openRotatingFile opens the file, or makes it. It must be closed.
func openRotatingFile(path string, rules rotation, say func(string, error)) (*rotatingFile, error) {
	f := &rotatingFile{path: path, rules: rules, say: say}
	return f, f.open()
}

// pipeTime is how long the reader of a pipe may still take for a batch of lines when somebody
// wants to begin the file anew, or to close it.
const pipeTime = 100 * time.Millisecond

// lock takes mu, for which who writes to a pipe has to hurry.
func (f *rotatingFile) lock() {
	f.callers.Add(1)
	defer f.callers.Add(-1)
	hurry(f.writing.Load())
	f.mu.Lock()
}

func hurry(writing *os.File) {
	if writing != nil {
		_ = writing.SetWriteDeadline(time.Now().Add(pipeTime)) // what is no pipe has none
	}
}

// open begins to write to what is at the path. Callers hold mu, or nobody else has f.
func (f *rotatingFile) open() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o640) // a pipe would else wait for a reader
	if err != nil {
		if errors.Is(err, syscall.ENXIO) && isPipe(f.path) {
			return fmt.Errorf("nobody reads the pipe %s: start its reader first", f.path)
		}
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if f.file != nil {
		_ = f.file.Close() // each write to it has said what there was to say
	}
	f.file, f.written, f.torn = file, info.Size(), isTorn(f.path, info)
	f.span = f.spanOf(time.Now())
	if f.written > 0 {
		f.span = f.spanOf(info.ModTime())
	}
	return nil
}

func isPipe(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}

// isTorn reports whether the last line of a file is not whole: who wrote it was killed, or
// its disk was full. Of what is no file, such as a pipe, or may not be read, that is not known.
func isTorn(path string, info fs.FileInfo) bool {
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

func (f *rotatingFile) spanOf(t time.Time) int64 {
	if f.rules.age <= 0 {
		return 0
	}
	return t.Unix() / max(1, int64(f.rules.age/time.Second))
}

// Write appends whole lines. The first of several failures is said.
func (f *rotatingFile) Write(lines []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow()
	if f.isDue(int64(len(lines))) {
		f.rotate()
	}
	n, err := f.put(lines)
	if err != nil && !f.failing {
		f.say("the access log cannot be written: its lines are lost until it can", err)
	}
	f.failing = err != nil
	return n, err
}

// put is Write to the file that is open. Callers hold mu.
func (f *rotatingFile) put(lines []byte) (int, error) {
	f.writing.Store(f.file)
	defer f.writing.Store(nil)
	_ = f.file.SetWriteDeadline(time.Time{}) // what is no pipe has none
	if f.callers.Load() > 0 {                // they may have called before there was anybody to hear it
		hurry(f.file)
	}
	if f.torn {
		if _, err := f.file.WriteString("\n"); err != nil {
			return 0, err
		}
		f.torn = false
		f.written++
	}
	n, err := f.file.Write(lines)
	f.written += int64(n)
	f.torn = n > 0 && n < len(lines)
	return n, err
}

func (f *rotatingFile) isDue(more int64) bool {
	return f.written > 0 && (f.rules.size > 0 && f.written+more > f.rules.size || f.spanOf(time.Now()) != f.span)
}

// rotate puts another file in the place of this one. Where that cannot be, the one there
// is goes on until another would be due. Callers hold mu.
func (f *rotatingFile) rotate() {
	err := f.setAside()
	if err == nil {
		err = f.open()
	}
	if err != nil {
		f.say("another file of the access log cannot be begun: the one before goes on", err)
		f.written, f.span = 0, f.spanOf(time.Now())
		return
	}
	if err := f.dropOld(); err != nil {
		f.say("old files of the access log cannot be removed", err)
	}
}

// asideFormat is the time in the name of a file that was set aside.
const asideFormat = "20060102T150405.000"

// setAside renames the file, unless another process has done so: in an upgrade two
// write to it.
func (f *rotatingFile) setAside() error {
	mine, err := f.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !os.SameFile(mine, there):
		return nil
	}
	for at := time.Now().UTC(); ; at = at.Add(time.Millisecond) {
		name := f.path + "." + at.Format(asideFormat)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return os.Rename(f.path, name)
		} else if err != nil {
			return err
		}
	}
}

// dropOld removes the oldest of those that were set aside, beyond those to keep.
// Callers hold mu.
func (f *rotatingFile) dropOld() error {
	if f.rules.keep == 0 {
		return nil
	}
	folder, base := filepath.Split(f.path)
	entries, err := os.ReadDir(filepath.Clean(folder))
	if err != nil {
		return err
	}
	var aside []string
	for _, e := range entries {
		at, ok := strings.CutPrefix(e.Name(), base+".")
		if _, err := time.Parse(asideFormat, at); ok && err == nil && e.Type().IsRegular() {
			aside = append(aside, e.Name())
		}
	}
	slices.Sort(aside)
	var faults []error
	for _, name := range aside[:max(0, len(aside)-f.rules.keep)] {
		faults = append(faults, os.Remove(filepath.Join(folder, name)))
	}
	return errors.Join(faults...)
}

// reopen begins to write to what is at the path now: somebody may have renamed the file.
// On an error the one before goes on.
func (f *rotatingFile) reopen() error {
	f.lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return fmt.Errorf("the access log cannot be opened: %w", err)
	}
	return nil
}

// setRules changes when another file is begun. It waits for nobody who writes.
func (f *rotatingFile) setRules(r rotation) { f.wanted.Store(&r) }

// follow takes over the rules that were set. Callers hold mu.
func (f *rotatingFile) follow() {
	r := f.wanted.Swap(nil)
	if r == nil {
		return
	}
	before := f.rules
	if f.rules = *r; r.age != before.age {
		f.span = f.spanOf(time.Now())
	}
}

func (f *rotatingFile) close() {
	f.lock()
	defer f.mu.Unlock()
	_ = f.file.Close() // each write has said what there was to say
}
