package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestHostKey: one is made, for its owner only, and stays the same; what others may
// read, or is none, is refused.
func TestHostKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key, err := openHostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again, err := openHostKey(path)
	if err != nil || ssh.FingerprintSHA256(again.PublicKey()) != ssh.FingerprintSHA256(key.PublicKey()) {
		t.Errorf("another key, or %v", err)
	}
	if err := makeHostKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); len(entries) != 1 || err != nil {
		t.Errorf("%v, %v are left", entries, err)
	}
	if err := os.Chmod(path, 0o640); err != nil { // as `service install` does with what is beside the settings
		t.Fatal(err)
	}
	if _, err := openHostKey(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("secret words"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openHostKey(path); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no key: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openHostKey(path); runtime.GOOS != "windows" && (err == nil || !strings.Contains(err.Error(), "chmod 600")) {
		t.Errorf("others may read it: %v", err)
	}
}
