package access

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// UsersFile is a file of names and hashed passwords, which is read again when it
// changes. Open one with [OpenUsersFile]. Safe for concurrent use.
type UsersFile struct {
	path string
	log  *slog.Logger
	now  atomic.Pointer[users]

	checking sync.Mutex // held while the file is looked at
	next     time.Time  // when to look again
	seen     fileState  // of the content that was read last, good or bad
}

// users are the content of a users file, and the logins that were right by it.
// What is read anew starts with none.
type users struct {
	accounts *accounts
	verified *verified
}

// fileState tells one content of a file from another.
type fileState struct {
	info    fs.FileInfo
	sum     [sha256.Size]byte
	settled bool // it was old enough when it was read that a later change shows in info
}

const (
	lookAgain  = time.Second     // the file is not looked at more often
	settleTime = 2 * time.Second // the coarsest clock of a file system
)

// OpenUsersFile reads a users file. A later change of it that cannot be read is
// a line in log, and the users stay as they were. Nothing is held open.
func OpenUsersFile(path string, log *slog.Logger) (*UsersFile, error) {
	f := &UsersFile{path: path, log: log}
	data, state, err := readUsers(path)
	if err != nil {
		return nil, err
	}
	a, err := parseUsers(path, data)
	if err != nil {
		return nil, err
	}
	f.now.Store(&users{a, newVerified()})
	f.seen, f.next = state, time.Now().Add(lookAgain)
	return f, nil
}

// CheckUsersFile returns what [OpenUsersFile] would find wrong.
func CheckUsersFile(path string) error {
	_, err := OpenUsersFile(path, slog.New(slog.DiscardHandler))
	return err
}

// current returns the users as the file has them, give or take a second.
func (f *UsersFile) current() *users {
	if f.checking.TryLock() { // else somebody is at it
		if now := time.Now(); !now.Before(f.next) {
			f.next = now.Add(lookAgain)
			f.refresh()
		}
		f.checking.Unlock()
	}
	return f.now.Load()
}

// refresh reads the file if it has changed. A change that is no good is told
// once.
func (f *UsersFile) refresh() {
	info, err := os.Stat(f.path)
	if err == nil && f.seen.settled && sameFile(info, f.seen.info) {
		return
	}
	data, state, err := readUsers(f.path)
	if err != nil {
		if f.seen.info != nil { // nil: it was told before
			f.log.Error("the users file cannot be read: the users stay as they were", "error", Escape(err.Error()))
		}
		f.seen = fileState{}
		return
	}
	before := f.seen
	f.seen = state
	if before.info != nil && before.sum == state.sum {
		return
	}
	a, err := parseUsers(f.path, data)
	if err != nil {
		f.log.Error("the users file has faults: the users stay as they were", "error", Escape(err.Error()))
		return
	}
	f.now.Store(&users{a, newVerified()})
	f.log.Info("the users file was read again", "file", Escape(f.path), "users", len(a.hashes))
}

func sameFile(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

var (
	errNotRegular   = errors.New("it is not a regular file")
	errUsersTooBig  = errors.New("it is over 16 MiB")
	errOthersMayUse = errors.New("everybody on this machine may read or write it")
)

// readUsers reads a users file, unless everybody may.
func readUsers(path string) ([]byte, fileState, error) {
	data, info, err := readPrivate(path)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		hint := ""
		switch {
		case errors.Is(err, errOthersMayUse):
			hint = "; try: chmod 600 " + path
		case errors.Is(err, fs.ErrNotExist):
			hint = "; `sallyport user add NAME --file " + path + "` makes it"
		}
		return nil, fileState{}, fmt.Errorf("the users file %s: %w%s", path, err, hint)
	}
	settled := time.Since(info.ModTime()) > settleTime
	return data, fileState{info, sha256.Sum256(data), settled}, nil
}

func parseUsers(path string, data []byte) (*accounts, error) {
	a, err := parseAccounts(data)
	if err != nil {
		return nil, fmt.Errorf("the users file %s:\n%w", path, err)
	}
	return a, nil
}

// readPrivate reads a file that not everybody may read or change. A group may:
// so that a service can read what it does not own.
func readPrivate(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path) // first: to open a named pipe would wait for whoever writes to it
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return nil, nil, errOthersMayUse
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err == nil && len(data) > maxUsersFile {
		err = errUsersTooBig
	}
	return data, info, err
}
