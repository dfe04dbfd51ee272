package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sallyport/sallyport/internal/regular"
)

// UsersFile is a file of names and hashed passwords, which is read again when it
// changes. Open one with [OpenUsersFile]. Safe for concurrent use.
type UsersFile struct {
	watched
	keys watched // the public keys of the users, in a file beside it
	log  *slog.Logger

	changing sync.Mutex // held while now is made of itself
	now      atomic.Pointer[users]
	told     atomic.Pointer[users] // those that whoever watches knows of
}

// users are the content of a users file, and the logins that were right by it.
// What is read anew starts with none.
type users struct {
	accounts *accounts
	verified *verified
	keys     *keys
}

const maxUsersFile = 16 << 20 // bytes

// OpenUsersFile reads a users file. A later change of it that cannot be read is
// a line in log, and the users stay as they were. Nothing is held open.
func OpenUsersFile(path string, log *slog.Logger) (*UsersFile, error) {
	f := &UsersFile{watched: watched{path: path, read: readUsers}, keys: watched{path: path + keysSuffix, read: readKeys}, log: log}
	data, err := f.open()
	if err != nil {
		return nil, err
	}
	a, err := parseUsers(path, data)
	if err != nil {
		return nil, err
	}
	k, err := f.openKeys()
	if err != nil {
		return nil, err
	}
	f.now.Store(&users{a, newVerified(), k})
	f.told.Store(f.now.Load())
	return f, nil
}

// openKeys reads the file of keys for the first time.
func (f *UsersFile) openKeys() (*keys, error) {
	data, err := f.keys.open()
	if err != nil {
		return nil, err
	}
	return parseKeys(f.keys.path, data)
}

// CheckUsersFile returns what [OpenUsersFile] would find wrong.
func CheckUsersFile(path string) error {
	_, err := OpenUsersFile(path, slog.New(slog.DiscardHandler))
	return err
}

// Watch looks at the file twice a second until ctx ends, and calls changed when
// other users are in force than before, whoever has read them, and be it between
// two that watch.
func (f *UsersFile) Watch(ctx context.Context, changed func()) {
	watch(ctx, func() {
		f.Look()
		if now := f.now.Load(); f.told.Swap(now) != now {
			changed()
		}
	})
}

// Look reads the file now, if it has changed. A change that is no good is a line
// in the log, and changes nothing.
func (f *UsersFile) Look() {
	f.checking.Lock()
	defer f.checking.Unlock()
	f.lookNow(f.refresh)
	f.keys.checking.Lock()
	defer f.keys.checking.Unlock()
	f.keys.lookNow(f.refreshKeys)
}

// current returns the users as the file has them, give or take a second.
func (f *UsersFile) current() *users {
	f.look(f.refresh)
	f.keys.look(f.refreshKeys)
	return f.now.Load()
}

// latest returns the users as they were last read.
func (f *UsersFile) latest() *users { return f.now.Load() }

// refresh takes what the file holds now. A change that is no good is told once.
func (f *UsersFile) refresh(data []byte, err error) {
	if err != nil {
		f.log.Error("the users file cannot be read: the users stay as they were", "error", Escape(err.Error()))
		return
	}
	a, err := parseUsers(f.path, data)
	if err != nil {
		f.log.Error("the users file has faults: the users stay as they were", "error", Escape(err.Error()))
		return
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	f.now.Store(&users{a, newVerified(), f.now.Load().keys})
	f.log.Info("the users file was read again", "file", Escape(f.path), "users", len(a.hashes))
}

// readUsers reads a users file, unless everybody may.
func readUsers(path string) ([]byte, fs.FileInfo, error) {
	data, info, err := regular.Read(path, maxUsersFile, private)
	if err == nil {
		return data, info, nil
	}
	hint := ""
	switch {
	case errors.Is(err, errOthersMayUse):
		hint = "; try: chmod 600 " + path
	case errors.Is(err, fs.ErrNotExist):
		hint = "; `sallyport user add NAME --file " + path + "` makes it"
	}
	return nil, nil, fmt.Errorf("the users file %s: %w%s", path, err, hint)
}

func parseUsers(path string, data []byte) (*accounts, error) {
	a, err := parseAccounts(data)
	if err != nil {
		return nil, fmt.Errorf("the users file %s:\n%w", path, err)
	}
	return a, nil
}

var errOthersMayUse = errors.New("everybody on this machine may read or write it")

// private refuses a file that everybody may read or change. A group may: so that
// a service can read what it does not own.
func private(info fs.FileInfo) error {
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		return errOthersMayUse
	}
	return nil
}
