//go:build unix

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// becomesPipe puts a named pipe, to which nobody writes, in the place of a file.
func becomesPipe(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReloadFromPipes: neither the settings nor a file that they name keeps a reload, or
// check, waiting because it is a pipe.
func TestReloadFromPipes(t *testing.T) {
	const good = oneListener + "rules: {allow: all, to: any}\n"
	s := serveIn(t, good)
	key := filepath.Join(s.dir, "key")
	if _, err := openHostKey(key); err != nil {
		t.Fatal(err)
	}
	becomesPipe(t, key)
	s.refuses("listeners: {name: lan, listen: 127.0.0.1:0, protocols: ssh}\nssh: {host_key: "+key+"}\nrules: []\n", "it is not a regular file")
	becomesPipe(t, s.file())
	for name, err := range map[string]error{"reload": s.Reload(t.Context()), "check": Check(s.file())} {
		if err == nil || !strings.Contains(err.Error(), "nothing comes through the pipe") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if doors := s.Status().Listeners; len(doors) != 1 || doors[0].Name != "lan" {
		t.Errorf("the listeners are %v", doors)
	}
	if err := os.Remove(s.file()); err != nil {
		t.Fatal(err)
	}
	s.reloads(good)
}

// TestCertificateBecomesAPipe: clients that come meanwhile get the one before.
func TestCertificateBecomesAPipe(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		c, log := servesPair(t, files)
		for _, path := range []string{files.Certificate, files.Key} {
			becomesPipe(t, path)
			time.Sleep(2 * lookEvery)
			log.Reset()
			if got := serialNow(t, c); got != 1 {
				t.Errorf("serial %d, want 1", got)
			}
			if said := log.String(); !strings.Contains(said, "stays in force") || !strings.Contains(said, path) {
				t.Errorf("the log says %q", said)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			writePair(t, files, 1)
			time.Sleep(2 * lookEvery)
			serialNow(t, c)
		}
	})
}
