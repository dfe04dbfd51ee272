// Package regular reads the files that settings name. Whatever is no regular file is refused
// at once: to open or to read a named pipe or a device may take for ever, and what a pipe has
// brought once it does not bring again.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Why a file is not read.
var (
	ErrFolder     = errors.New("it is a folder")
	ErrNotRegular = errors.New("it is not a regular file")
)

// Open opens a regular file for reading, and says what it is. It waits for nobody; the
// caller closes the file. The error is ErrFolder, ErrNotRegular or the system's, which names
// the file.
func Open(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path) // first: whoever writes to a named pipe would notice, and so might a device
	if err != nil {
		return nil, nil, err
	}
	if err := check(info); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be another one by now
	if err != nil {
		return nil, nil, err
	}
	info, err = f.Stat()
	if err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func check(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return ErrFolder
	case !info.Mode().IsRegular():
		return ErrNotRegular
	}
	return nil
}

// Read returns what is in a regular file of at most so many bytes, if may allows it (nil: it
// is allowed), and what the file is. The error is that of may, or says what is wrong without
// the file's name.
func Read(path string, most int64, may func(fs.FileInfo) error) (_ []byte, info fs.FileInfo, err error) {
	defer func() {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
	}()
	f, info, err := Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if may != nil {
		if err := may(info); err != nil {
			return nil, nil, err
		}
	}
	data, err := readAll(f, info.Size(), most)
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
}

// readAll reads at most so many bytes of what is as long as size, or has grown meanwhile.
func readAll(r io.Reader, size, most int64) ([]byte, error) {
	data := make([]byte, 0, min(size, most)+1)
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > most:
			return nil, fmt.Errorf("it is over %d MiB", most>>20)
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		case len(data) == cap(data):
			data = append(data, 0)[:len(data)]
		}
	}
}
