package daemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// isJournal reports whether f is what JOURNAL_STREAM names: its device and inode.
func isJournal(f *os.File, named string) bool {
	var about unix.Stat_t
	if named == "" || unix.Fstat(int(f.Fd()), &about) != nil {
		return false
	}
	return fmt.Sprintf("%d:%d", about.Dev, about.Ino) == named
}
