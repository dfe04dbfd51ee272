package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// The settings file, and no other, may be a pipe: <(...) of a shell is one, and so is
// /dev/stdin. What came through it once cannot be read again.

const (
	// pipePatience is how long whoever writes to the pipe may take: he may ask a person
	// for a password.
	pipePatience = 30 * time.Second
	pipePause    = 10 * time.Millisecond // between two looks, where the system cannot tell of what arrives
)

var (
	errEmptyPipe = errors.New("nothing comes through the pipe (what came once, as from <(...), cannot be read again: a server that is to be reloaded or upgraded needs a file)")
	errSlowPipe  = errors.New("whoever writes to the pipe had not ended after " + pipePatience.String())
)

// readFirst reads the file at path as realDisk.read does, or a pipe.
func readFirst(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case path == os.DevNull:
		return nil, nil
	case info.Mode()&fs.ModeNamedPipe != 0:
		return openPipe(path)
	}
	return realDisk{}.read(path)
}

func openPipe(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // else it waits for somebody to write
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readPipe(f, time.Now().Add(pipePatience))
	if err == nil && len(data) == 0 {
		return nil, errEmptyPipe
	}
	return data, err
}

// readPipe reads to the end, or a byte more than may be. The end is also that nobody writes
// any more, or yet.
func readPipe(f *os.File, until time.Time) ([]byte, error) {
	_ = f.SetReadDeadline(until) // on systems that cannot, reads do not wait
	var data []byte
	piece := make([]byte, 64<<10)
	for len(data) <= maxSize {
		n, err := f.Read(piece)
		data = append(data, piece[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case errors.Is(err, syscall.EAGAIN) && time.Now().Before(until):
			<-time.After(pipePause)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EAGAIN):
			return nil, errSlowPipe
		case err != nil:
			return nil, err
		}
	}
	return data, nil
}
