package access

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identd is a fake identification server on loopback.
type identd struct {
	port  uint16
	asked atomic.Int64 // how many connections came

	mu   sync.Mutex
	open map[net.Conn]bool
}

// newIdentd starts an identd that leaves each connection to answer, and closes
// it after that. It ends with the test.
func newIdentd(t *testing.T, host string, answer func(c net.Conn)) *identd {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	d := &identd{port: netip.MustParseAddrPort(ln.Addr().String()).Port(), open: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.asked.Add(1)
			d.keep(c, true)
			wg.Go(func() {
				defer d.keep(c, false)
				answer(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		d.closeAll()
		wg.Wait()
	})
	return d
}

func (d *identd) keep(c net.Conn, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if is {
		d.open[c] = true
		return
	}
	delete(d.open, c)
	c.Close()
}

func (d *identd) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		c.Close()
	}
}

// says makes an identd answer each question with the lines that reply makes of it.
func says(reply func(query string) string) func(net.Conn) {
	return func(c net.Conn) {
		query, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			_, _ = io.WriteString(c, reply(strings.TrimRight(query, "\r\n")))
		}
	}
}

// names makes an identd that gives one name for every connection.
func names(userid string) func(net.Conn) {
	return says(func(query string) string { return query + " : USERID : UNIX : " + userid + "\r\n" })
}

// hangs makes an identd that takes the question and says nothing, until the
// other side has closed.
func hangs(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

var (
	here   = netip.MustParseAddrPort("127.0.0.1:1080")
	client = netip.MustParseAddrPort("127.0.0.1:40000")
)

func TestAskQuestion(t *testing.T) {
	tests := []struct{ local, remote, query string }{
		{"127.0.0.1:1080", "127.0.0.1:40000", "40000 , 1080\r\n"},
		{"127.0.0.2:1080", "127.0.0.1:1", "1 , 1080\r\n"},
		{"127.0.0.3:65535", "127.0.0.4:65534", "65534 , 65535\r\n"},
	}
	for _, test := range tests {
		local, remote := netip.MustParseAddrPort(test.local), netip.MustParseAddrPort(test.remote)
		var from net.Addr
		var query string
		d := newIdentd(t, remote.Addr().String(), func(c net.Conn) {
			from = c.RemoteAddr()
			query, _ = bufio.NewReader(c).ReadString('\n')
			ports := strings.TrimSpace(query)
			_, _ = io.WriteString(c, ports+" : USERID : UNIX : fred\r\n")
		})
		name, err := Ident{Port: d.port}.Ask(t.Context(), local, remote)
		if name != "fred" || err != nil {
			t.Errorf("%s, %s: %q, %v; want fred", test.local, test.remote, name, err)
			continue
		}
		if query != test.query {
			t.Errorf("asked %q, want %q", query, test.query)
		}
		if asker := netip.MustParseAddrPort(from.String()).Addr(); asker != local.Addr() {
			t.Errorf("asked from %v, want %v: identd would not know the connection", asker, local.Addr())
		}
	}
}

func TestAskOverIPv6(t *testing.T) {
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "[::1]:0")
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return // a machine without IPv6
	}
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	d := newIdentd(t, "::1", names("fred"))
	name, err := Ident{Port: d.port}.Ask(t.Context(), netip.MustParseAddrPort("[::1]:1080"), netip.MustParseAddrPort("[::1]:40000"))
	if name != "fred" || err != nil {
		t.Errorf("%q, %v; want fred", name, err)
	}
}

// lines are what identds answer to a query before they close, and what becomes
// of it. Where a name is wanted and none is given, any will do.
var lines = []struct {
	name  string
	reply func(query string) string
	want  string
	err   error
}{
	{"CR LF", func(q string) string { return q + " : USERID : UNIX : fred\r\n" }, "fred", nil},
	{"LF", func(q string) string { return q + " : USERID : UNIX : fred\n" }, "fred", nil},
	{"the stream's end", func(q string) string { return q + " : USERID : UNIX : fred" }, "fred", nil},
	{"more than a line", func(q string) string { return q + " : USERID : UNIX : fred\r\n" + q + " : USERID : UNIX : root\r\n" }, "fred", nil},
	{"the longest line", func(q string) string { return pad(q+" : USERID : UNIX : ", 1000) + "\r\n" }, "", nil},
	{"a longer line", func(q string) string { return pad(q+" : USERID : UNIX : ", 1001) + "\r\n" }, "", server.NoIdentd},
	{"far too long a line", func(q string) string { return pad(q+" : USERID : UNIX : ", 1<<20) + "\r\n" }, "", server.NoIdentd},
	{"ERROR", func(q string) string { return q + " : ERROR : NO-USER\r\n" }, "", server.OtherUser},
	{"a hyphen", func(q string) string { return q + " : USERID : UNIX : -\r\n" }, "", server.OtherUser},
	{"OTHER", func(q string) string { return q + " : USERID : OTHER : fred\r\n" }, "", server.OtherUser},
	{"other ports", func(string) string { return "40001 , 1080 : USERID : UNIX : fred\r\n" }, "", server.NoIdentd},
	{"ports in turn", func(string) string { return "1080 , 40000 : USERID : UNIX : fred\r\n" }, "", server.NoIdentd},
	{"NUL", func(q string) string { return q + " : USERID : UNIX : fr\x00ed\r\n" }, "", server.NoIdentd},
	{"an empty line", func(q string) string { return "\r\n" + q + " : USERID : UNIX : fred\r\n" }, "", server.NoIdentd},
	{"nothing", func(string) string { return "" }, "", server.NoIdentd},
	{"something else", func(string) string { return "220 mail.example.com ESMTP\r\n" }, "", server.NoIdentd},
}

func pad(line string, length int) string { return line + strings.Repeat("u", length-len(line)) }

func TestAskAnswers(t *testing.T) {
	for _, test := range lines {
		t.Run(test.name, func(t *testing.T) {
			d := newIdentd(t, "127.0.0.1", says(test.reply))
			name, err := Ident{Port: d.port}.Ask(t.Context(), here, client)
			if !errors.Is(err, test.err) || (test.want != "" && name != test.want) || (err == nil) != (name != "") {
				t.Errorf("%q, %v; want %q, %v", name, err, test.want, test.err)
			}
			if asked := d.asked.Load(); asked != 1 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

func TestAskRefused(t *testing.T) {
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	ln.Close()
	name, err := Ident{Port: port}.Ask(t.Context(), here, client)
	if name != "" || !errors.Is(err, server.NoIdentd) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%q, %v; want %v and the refusal", name, err, server.NoIdentd)
	}
}

// Unless told otherwise, it is port 113 of the client's machine that is asked.
func TestAskPort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is sent, and the error says where it would have gone
	_, err := Ident{}.Ask(ctx, here, netip.MustParseAddrPort("127.0.0.9:40000"))
	dial, ok := errors.AsType[*net.OpError](err)
	if !ok || dial.Addr == nil || dial.Addr.String() != "127.0.0.9:113" {
		t.Errorf("%v; want an error about 127.0.0.9:113", err)
	}
}

func TestAskClosedAtOnce(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"FIN": func(net.Conn) {},
		"RST": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
	} {
		d := newIdentd(t, "127.0.0.1", answer)
		if userid, err := (Ident{Port: d.port}).Ask(t.Context(), here, client); userid != "" || !errors.Is(err, server.NoIdentd) {
			t.Errorf("%s: %q, %v; want %v", name, userid, err, server.NoIdentd)
		}
	}
}

// An identd that never comes to an end is left at the limit of time or of
// bytes, whichever is first, and its connection is closed.
func TestAskEndsAtItsLimits(t *testing.T) {
	tests := []struct {
		name   string
		answer func(c net.Conn)
		want   error
	}{
		{"hangs", hangs, os.ErrDeadlineExceeded},
		{"trickles", trickles, os.ErrDeadlineExceeded},
		{"rambles", rambles, errIdentLong},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ended := make(chan struct{})
			d := newIdentd(t, "127.0.0.1", func(c net.Conn) {
				defer close(ended)
				test.answer(c)
			})
			name, err := Ident{Port: d.port, Timeout: 200 * time.Millisecond}.Ask(t.Context(), here, client)
			if name != "" || !errors.Is(err, server.NoIdentd) || !errors.Is(err, test.want) {
				t.Errorf("%q, %v; want %v, %v", name, err, server.NoIdentd, test.want)
			}
			<-ended // comes only when the connection was closed
		})
	}
}

// trickles sends a byte now and then: every single read is in time.
func trickles(c net.Conn) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := c.Write([]byte{'6'}); err != nil {
			return
		}
	}
}

// rambles sends without ever ending the line.
func rambles(c net.Conn) {
	for chunk := []byte(strings.Repeat("u", 512)); ; {
		if _, err := c.Write(chunk); err != nil {
			return
		}
	}
}

func TestAskHonoursItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newIdentd(t, "127.0.0.1", func(c net.Conn) {
		_, _ = bufio.NewReader(c).ReadString('\n')
		cancel() // once the question is asked
		hangs(c)
	})
	name, err := Ident{Port: d.port, Timeout: time.Hour}.Ask(ctx, here, client)
	if name != "" || !errors.Is(err, server.NoIdentd) {
		t.Errorf("cancelled in the middle: %q, %v; want %v", name, err, server.NoIdentd)
	}
	before := d.asked.Load()
	if name, err := (Ident{Port: d.port, Timeout: time.Hour}).Ask(ctx, here, client); name != "" || !errors.Is(err, server.NoIdentd) {
		t.Errorf("cancelled before: %q, %v; want %v", name, err, server.NoIdentd)
	}
	if asked := d.asked.Load(); asked != before {
		t.Error("identd was asked though nobody waits")
	}
}

// 200 look-ups that hang at once all end, and leave no descriptor; TestMain
// sees that they leave no goroutine.
func TestAskManyThatHang(t *testing.T) {
	const many = 200
	arrived := make(chan struct{}, many)
	d := newIdentd(t, "127.0.0.1", func(c net.Conn) {
		arrived <- struct{}{}
		hangs(c)
	})
	before := descriptors(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error, many)
	for range many {
		go func() {
			_, err := Ident{Port: d.port, Timeout: time.Hour}.Ask(ctx, here, client)
			errs <- err
		}()
	}
	for range many {
		<-arrived
	}
	cancel()
	for range many {
		if err := <-errs; !errors.Is(err, server.NoIdentd) {
			t.Errorf("%v, want %v", err, server.NoIdentd)
		}
	}
	d.awaitIdle(t)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// awaitIdle waits until no connection is open at identd.
func (d *identd) awaitIdle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); ; {
		d.mu.Lock()
		open := len(d.open)
		d.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections to identd are still open", open)
		}
	}
}

// descriptors counts the descriptors that are open; 0 where the system does not tell.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open)
}
