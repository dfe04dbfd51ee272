//go:build unix

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func makePipe(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSettingsFromAPipe: they are read to the end, however slowly it comes; a pipe through
// which nothing comes is no empty file.
func TestSettingsFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	makePipe(t, path)
	if _, err := Load(path, Override{}); !errors.Is(err, errEmptyPipe) {
		t.Errorf("of a pipe to which nobody writes: %v", err)
	}
	holder, err := os.OpenFile(path, os.O_RDWR, 0) // so that both ends can be opened in any order
	if err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, first := writer.WriteString("limits: {few: {sessions: 7, per: user}}\n# ")
		for range 3 << 10 {
			_, err := writer.WriteString(strings.Repeat("a", 64)) // more than fits into a pipe
			first = errors.Join(first, err)
		}
		wrote <- errors.Join(first, writer.Close(), holder.Close())
	}()
	s, err := Load(path, Override{})
	if err != nil || s.Limits["few"].Sessions != 7 {
		t.Errorf("of a pipe: %v, %v", s, err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("the writer: %v", err)
	}
}

// TestPipeThatNeverEnds keeps nobody waiting for ever, and fills no memory.
func TestPipeThatNeverEnds(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("rules: []\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := readPipe(r, time.Now()); !errors.Is(err, errSlowPipe) {
		t.Errorf("of who does not end: %v", err)
	}
	wrote := make(chan error, 1)
	go func() {
		piece := make([]byte, 64<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				wrote <- w.Close()
				return
			}
		}
	}()
	data, err := readPipe(r, time.Now().Add(pipePatience))
	if err != nil || len(data) <= maxSize || len(data) > maxSize+1<<20 {
		t.Errorf("of what is too much: %d bytes, %v", len(data), err)
	}
	r.Close()
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// TestFilesThatArePipes: no file that the settings name may be one, nor a device.
func TestFilesThatArePipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	makePipe(t, pipe)
	settings := filepath.Join(dir, "sallyport.yaml")
	for _, text := range []string{
		"include: FILE",
		"users: {file: FILE}",
		"sets: {a: {hosts: FILE}}",
		"sets: {a: {prefixes: [FILE]}}",
		"listeners: {listen: '127.0.0.1:0', tls: {certificate: FILE, key: FILE, client_ca: FILE}}",
		"listeners: {listen: '127.0.0.1:0', map: {to: 'a.example:1', tls: {ca: FILE}}}",
		"upstreams: {hq: {proxies: 'socks5://192.0.2.1', login: {file: FILE}}}",
	} {
		for _, path := range []string{pipe, "/dev/zero"} {
			if err := os.WriteFile(settings, []byte(strings.ReplaceAll(text, "FILE", path)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(settings, Override{})
			if err == nil || strings.Count(err.Error(), "cannot be read: it is not a regular file") != strings.Count(text, "FILE") {
				t.Errorf("%s of %s: %v", text, path, err)
			}
		}
	}
	if _, err := Load("/dev/zero", Override{}); err == nil || !strings.Contains(err.Error(), "it is not a regular file") {
		t.Errorf("settings from a device: %v", err)
	}
	if _, err := Load(os.DevNull, Override{}); err != nil {
		t.Errorf("no settings: %v", err)
	}
}
