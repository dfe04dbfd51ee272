package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("some text"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		data, info, err := Read(name, 9, nil)
		if err != nil || string(data) != "some text" || info.Size() != 9 {
			t.Errorf("%s: %q, %v, %v", name, data, info, err)
		}
	}
	denied := errors.New("not this one")
	if _, _, err := Read(path, 9, func(fs.FileInfo) error { return denied }); !errors.Is(err, denied) {
		t.Errorf("what may not be read: %v", err)
	}
	if _, _, err := Read(path, 8, nil); err == nil || !strings.Contains(err.Error(), "it is over") {
		t.Errorf("what is too large: %v", err)
	}
	if _, _, err := Read(dir, 9, nil); !errors.Is(err, ErrFolder) {
		t.Errorf("a folder: %v", err)
	}
	if _, _, err := Read(filepath.Join(dir, "none"), 9, nil); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), dir) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestReadAllThatGrows: a file may be longer than it was when it was looked at.
func TestReadAllThatGrows(t *testing.T) {
	text := strings.Repeat("abc", 1000)
	for _, size := range []int64{0, 1, 2999, 3000, 5000} {
		if data, err := readAll(strings.NewReader(text), size, 4000); err != nil || string(data) != text {
			t.Errorf("of what was %d bytes long: %d bytes, %v", size, len(data), err)
		}
		if _, err := readAll(strings.NewReader(text), size, 2999); err == nil {
			t.Errorf("of what was %d bytes long, more than may be is read", size)
		}
	}
}
