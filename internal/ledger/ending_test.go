//go:build unix

package ledger

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// wire is a way to a database that may be cut.
type wire struct {
	net.Listener
	to string

	mu     sync.Mutex
	drops  int // so many connections more are ended at once
	silent bool
	open   []net.Conn
	all    sync.WaitGroup
}

// wired returns the database behind a wire.
func wired(t *testing.T, place Place) (*wire, Place) {
	t.Helper()
	u, err := url.Parse(string(place))
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")}
	u.Host, u.RawQuery = l.Addr().String(), "sslmode=disable"
	w.all.Go(func() { w.serve(t) })
	t.Cleanup(func() {
		l.Close()
		w.cut()
		w.all.Wait()
	})
	return w, Place(u.String())
}

func (w *wire) serve(t *testing.T) {
	for {
		near, err := w.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "unix", w.to)
		if err != nil || w.refuses(near, far) {
			near.Close()
			if far != nil {
				far.Close()
			}
			continue
		}
		for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
			w.all.Go(func() { w.carry(to, from) })
		}
	}
}

func (w *wire) refuses(near, far net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drops > 0 {
		w.drops--
		return true
	}
	w.open = append(w.open, near, far)
	return false
}

func (w *wire) carry(to, from net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		w.mu.Lock()
		silent := w.silent
		w.mu.Unlock()
		if silent {
			_, _ = io.Copy(io.Discard, from) // until the wire is cut
			return
		}
		if _, lost := to.Write(b[:n]); err != nil || lost != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

// fails makes so many connections more fail, and all that there are.
func (w *wire) fails(drops int) {
	w.mu.Lock()
	w.drops = drops
	w.mu.Unlock()
	w.cut()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		c.Close()
	}
}

// goSilent has nothing come through any more, and nobody told.
func (w *wire) goSilent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = true
}

// TestLastWriteIsTriedAgain: a database that is started anew while the server stops gets
// what is left.
func TestLastWriteIsTriedAgain(t *testing.T) {
	place := postgres(t)
	w, behind := wired(t, place)
	var said lines
	l, err := Open(t.Context(), behind, Options{Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.fails(2)
	l.add(alice, Counts{1, 0, 1, 2})
	l.finish(t.Context())
	if got := reads(t, place, Query{By: "user"}).Sum; got != (Counts{1, 0, 1, 2}) {
		t.Errorf("%+v was written; the log says:\n%s", got, said.text.String())
	}
}

// TestSilentDatabaseAtTheEnd: a database that does not answer any more does not hold up
// the end of the server.
func TestSilentDatabaseAtTheEnd(t *testing.T) {
	w, place := wired(t, postgres(t))
	var said lines
	l, err := Open(t.Context(), place, Options{Keep: keepAll, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.goSilent()
	l.add(alice, Counts{1, 0, 1, 2})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.finish(t.Context())
		l.Close()
	}()
	late := time.NewTimer(2 * lastPatience) // it was 20 seconds
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		t.Error("it does not end")
		w.cut()
		<-ended
	}
	if text := said.text.String(); !strings.Contains(text, "could not be written to the end") || !strings.Contains(text, "does not answer in time") {
		t.Errorf("the log says:\n%s", said.text.String())
	}
}
