//go:build unix

package admin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
)

// TestWhoHasComeIsAnswered: a request that is half there when the server is to stop is
// answered when the rest comes, by a handler whose context goes on.
func TestWhoHasComeIsAnswered(t *testing.T) {
	path := socketIn(t)
	l := mustListen(t, path)
	ctx, stop := context.WithCancel(t.Context())
	var served sync.WaitGroup
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-leaving(r.Context()):
			w.Header().Set("Leaving", "yes")
		default:
		}
		if err := r.Context().Err(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	served.Go(func() { Serve(ctx, l, answers, slog.New(slog.DiscardHandler)) })
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	say := func(c net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(c net.Conn, says string) {
		t.Helper()
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Leaving") != says || answer.Close != (says != "") {
			t.Errorf("it is answered %s, %v", answer.Status, answer.Header)
		}
	}
	slow, idle := dial(), dial()
	say(slow, "GET / HTTP/1.1\r\n")
	say(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	hear(idle, "") // so the one before it was accepted, too
	stop()
	if n, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who has nothing to ask hears %d bytes, %v", n, err)
	}
	say(slow, "Host: a\r\n\r\n")
	hear(slow, "yes")
	served.Wait()
}
