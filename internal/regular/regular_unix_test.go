//go:build unix

package regular

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestNotRegular: neither a pipe to which nobody writes nor a device without an end keeps
// anybody waiting.
func TestNotRegular(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", os.DevNull} {
		if _, _, err := Read(path, 9, nil); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
		if f, _, err := Open(path); !errors.Is(err, ErrNotRegular) || f != nil {
			t.Errorf("%s is opened: %v, %v", path, f, err)
		}
	}
}
