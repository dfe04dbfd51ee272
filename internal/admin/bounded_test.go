package admin

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestStrangersAreBounded: whoever reaches the dashboard's address makes no more
// connections than there may be, and keeps nobody waiting: the oldest makes room.
func TestStrangersAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		sources string // of the flood
		left    int    // of them, besides the one who comes then
	}{
		"of many": {"192.0.2.%d:4000", mostConns - 1},
		"of one":  {"[2001:db8::%d]:4000", mostOfOne},
	} {
		synctest.Test(t, func(t *testing.T) {
			socket, end := servesStrangers(t, "hello")
			defer end()
			began := time.Now()
			flood := floods(t, socket, test.sources)
			one := dials(t, socket, "198.51.100.1:4000")
			if _, err := io.WriteString(one, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			made := len(flood) - test.left // room
			for i, c := range flood {
				if c.Peer().Closed() != (i < made) {
					t.Errorf("%s: the connection %d is closed: %v, want the oldest %d closed", name, i, c.Peer().Closed(), made)
				}
			}
			answer, err := io.ReadAll(one)
			if err != nil || !strings.HasSuffix(string(answer), "hello") || time.Since(began) > 0 {
				t.Errorf("%s: who comes then hears %q, %v, after %v", name, answer, err, time.Since(began))
			}
		})
	}
}

// floods makes more connections than there may be, with half a request on each.
func floods(t *testing.T, socket *proxytest.Listener, sources string) (flood []*proxytest.Conn) {
	t.Helper()
	for i := range mostConns + 30 {
		c := dials(t, socket, fmt.Sprintf(sources, i))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		flood = append(flood, c)
		synctest.Wait()
	}
	return flood
}

// TestWhoDoesNotReadIsLeft: an answer that its client does not read ends.
func TestWhoDoesNotReadIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("a", 10*writeAtOnce)
		socket, end := servesStrangers(t, long)
		defer end()
		deaf := dials(t, socket, "192.0.2.3:4000")
		if _, err := io.WriteString(deaf, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * requestTime)
		if n, err := io.Copy(io.Discard, deaf); n >= int64(10*len(long)) {
			t.Errorf("the deaf one hears %d bytes, %v", n, err)
		}
	})
}

// servesStrangers answers everything with the text.
func servesStrangers(t *testing.T, text string) (socket *proxytest.Listener, end func()) {
	t.Helper()
	return serves(t, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = io.WriteString(w, text)
	}))
}

// serves answers by a handler, over TLS where there are terms.
func serves(t *testing.T, terms *tls.Config, answers http.Handler) (socket *proxytest.Listener, end func()) {
	t.Helper()
	socket = proxytest.NewNetwork(netip.MustParseAddr("192.0.2.1"), 4<<10).MustListen("192.0.2.2:1088")
	ctx, stop := context.WithCancel(t.Context())
	on := Bounded(socket)
	if terms != nil {
		on = tls.NewListener(on, terms)
	}
	var serving sync.WaitGroup
	serving.Go(func() { Serve(ctx, on, answers, slog.New(slog.DiscardHandler)) })
	return socket, func() {
		stop()
		serving.Wait()
	}
}

func dials(t *testing.T, socket *proxytest.Listener, from string) *proxytest.Conn {
	t.Helper()
	c, err := socket.Dial(netip.MustParseAddrPort(from))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
