package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
		path = filepath.Join(filepath.Dir(d.src.file), path)
	}
	d.files = append(d.files, fileRef{n, path, hint})
	return path
}

// checkFiles notes the files that cannot be read.
func (d *decoder) checkFiles(readable func(path string) error) {
	for _, f := range d.files {
		err := readable(f.path)
		if err == nil {
			continue
		}
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = f.hint
		}
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		d.fail(f.at, "the file "+strconv.Quote(f.path)+" cannot be read: "+err.Error(), hint)
	}
}

var errFolder = errors.New("it is a folder")

// readable opens a file and closes it again.
func readable(path string) error {
	info, err := os.Stat(path) // first: to open a named pipe would wait for whoever writes to it
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return errFolder
	case !info.Mode().IsRegular():
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
