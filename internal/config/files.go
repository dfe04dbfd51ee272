package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/internal/regular"
)

// fileRef is a file that the settings name.
type fileRef struct {
	at   *node
	path string
	hint string // for a file that does not exist
}

// file returns n as the path of a file. A relative one starts at the settings
// file's folder, wherever the program was started.
func (d *decoder) file(n *node, hint string) string {
	text, ok := d.text(n)
	if !ok {
		return ""
	}
	if strings.Contains(text, "\x00") {
		d.fail(n, "the name of a file cannot hold a NUL byte", "")
		return ""
	}
	path := text
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(n.src.file), path)
	}
	d.files = append(d.files, fileRef{n, path, hint})
	return path
}

// checkFiles notes the files that cannot be read.
func (d *decoder) checkFiles() {
	for _, f := range d.files {
		err := d.disk.readable(f.path)
		if err == nil {
			continue
		}
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = f.hint
		}
		d.fail(f.at, "the file "+strconv.Quote(f.path)+" cannot be read: "+bare(err).Error(), hint)
	}
}

// bare returns the error without the path, which the message has already.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// paths returns n as a list of files.
func (d *decoder) paths(n *node) []string {
	var list []string
	d.each(n, func(item *node) {
		if path := d.file(item, ""); path != "" {
			list = append(list, path)
		}
	})
	return list
}

// disk is where files are looked up.
type disk interface {
	readable(path string) error         // nil: the file can be read
	read(path string) ([]byte, error)   // of a file over maxSize, at least one byte more than that
	list(path string) ([]string, error) // the names in a folder, in order; errNoFolder for a file
	real(path string) string            // the one name of the file at path
	exposed(path string) bool           // others than the owner and the group can read it
}

// noDisk is a disk on which every file can be read, and every folder is empty.
type noDisk struct{}

func (noDisk) readable(string) error         { return nil }
func (noDisk) read(string) ([]byte, error)   { return nil, nil }
func (noDisk) list(string) ([]string, error) { return nil, nil }
func (noDisk) real(path string) string       { return path }
func (noDisk) exposed(string) bool           { return false }

// realDisk is the machine's.
type realDisk struct{}

func (realDisk) readable(path string) error { return readable(path) }

// read reads one byte more than may be, and leaves it to source.check to refuse.
func (realDisk) read(path string) ([]byte, error) {
	f, _, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

func (realDisk) list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, errNoFolder
	}
	entries, err := os.ReadDir(path) // sorted
	var names []string
	for _, e := range entries {
		if e.Type()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) != 0 {
			continue // to read it might never end
		}
		names = append(names, e.Name())
	}
	return names, err
}

func (realDisk) real(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

func (realDisk) exposed(path string) bool {
	info, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 // which has no such bits
}

var errNoFolder = errors.New("it is not a folder")

// readable opens a file and closes it again.
func readable(path string) error {
	f, _, err := regular.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
