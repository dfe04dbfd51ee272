//go:build unix

package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFolder waits until nobody else changes a users file in the folder, and
// keeps others out until unlock is called. The lock ends with the process.
func lockFolder(path string) (unlock func(), err error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(folder.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		folder.Close()
		return nil, fmt.Errorf("the folder %s cannot be locked: %w", path, err)
	}
	return func() { folder.Close() }, nil
}

// syncFolder makes a rename in the folder last.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// likeFile gives f the mode and the owner of another file, so that a server
// that may read that one may read f.
func likeFile(f *os.File, other fs.FileInfo) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	was, ok := other.Sys().(*syscall.Stat_t)
	is, okMine := mine.Sys().(*syscall.Stat_t)
	if ok && okMine && (was.Uid != is.Uid || was.Gid != is.Gid) {
		if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return fmt.Errorf("the file would get another owner: %w", err)
		}
	}
	return f.Chmod(other.Mode().Perm())
}
