package admin

import (
	"context"
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
// connections than there may be. Those that say nothing end, and the next are served.
func TestStrangersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const over = 3
		socket, end := servesStrangers(t, "hello")
		defer end()
		for range mostConns + over {
			dials(t, socket)
		}
		synctest.Wait()
		if n := socket.Waiting(); n != over {
			t.Errorf("%d connections wait, want %d: there may be %d", n, over, mostConns)
		}
		one := dials(t, socket)
		if _, err := io.WriteString(one, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(one)
		if err != nil || !strings.HasSuffix(string(answer), "hello") {
			t.Errorf("who comes behind them hears %q, %v", answer, err)
		}
	})
}

// TestWhoDoesNotReadIsLeft: an answer that its client does not read ends.
func TestWhoDoesNotReadIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("a", 10*writeAtOnce)
		socket, end := servesStrangers(t, long)
		defer end()
		deaf := dials(t, socket)
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
	socket = proxytest.NewNetwork(netip.MustParseAddr("192.0.2.1"), 4<<10).MustListen("192.0.2.2:1088")
	ctx, stop := context.WithCancel(t.Context())
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = io.WriteString(w, text)
	})
	var serving sync.WaitGroup
	serving.Go(func() { Serve(ctx, Bounded(socket), answers, slog.New(slog.DiscardHandler)) })
	return socket, func() {
		stop()
		serving.Wait()
	}
}

func dials(t *testing.T, socket *proxytest.Listener) *proxytest.Conn {
	t.Helper()
	c, err := socket.Dial(netip.MustParseAddrPort("192.0.2.3:4000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
