//go:build unix

package server

import (
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestNotHTTP: what only looks a little like HTTP is told nothing.
func TestNotHTTP(t *testing.T) {
	for _, words := range []string{"SSH-2.0-OpenSSH_9.2\r\n", "get / HTTP/1.1\r\n\r\n", "hello\r\n", "\r\n", "@\r\n", "[\r\n"} {
		r := onLoopback(t, &Server{Policy: deciding(anything)}, Listener{})
		c := proxytest.Dial(t, r.address)
		proxytest.Say(t, c, []byte(words))
		if rest, _ := proxytest.End(c); len(rest) > 0 {
			t.Errorf("to %q it said %q", words, rest)
		}
		c.Close()
		r.next(Garbage)
	}
}

// TestHTTPOpening: SSH is told apart however its first bytes are cut, and takes
// nothing from what is HTTP.
func TestHTTPOpening(t *testing.T) {
	for words, want := range map[string]string{
		"S": "more", "SS": "more", "SSH": "more", "SSH-": "refused", "SSH-2.0": "refused",
		"SE": "http", "SSX": "http", "G": "http", "SSH /": "http",
	} {
		took, next := httpOpening{}.feed([]byte(words))
		got := "more"
		switch {
		case next.stream != nil:
			got = "http"
		case next.refusal != nil:
			got = "refused"
		}
		if got != want || took != 0 || len(next.reply) > 0 {
			t.Errorf("%q: %s, took %d, says %q; want %s", words, got, took, next.reply, want)
		}
	}
}
