package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// running is one call of run in a goroutine of its own.
type running struct {
	out  *bufio.Reader
	errs lockedBuffer
	code chan int
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(in io.Reader, args ...string) *running {
	r, w := io.Pipe()
	p := &running{out: bufio.NewReader(r), code: make(chan int, 1)}
	go func() {
		p.code <- run(args, in, w, &p.errs)
		w.Close()
	}()
	return p
}

func (p *running) exit(t *testing.T) int {
	t.Helper()
	select {
	case code := <-p.code:
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not end; it said: %s", p.errs.String())
		return -1
	}
}

// line returns the next line of standard output.
func (p *running) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%v; it said: %s", err, p.errs.String())
	}
	return line
}

// startServe serves with the settings on a free port, and ends with the test by
// the signal that a service manager sends.
func startServe(t *testing.T, settings string) (p *running, address string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p = start(nil, "--config", file, "--listen", "127.0.0.1:0", "--admin", "off")
	_, rest, ok := strings.Cut(p.line(t), "listening on ")
	if !ok {
		t.Fatal("the first line does not say where it listens")
	}
	address, _, _ = strings.Cut(rest, " ")
	if try := p.line(t); !strings.Contains(try, "curl") || !strings.Contains(try, address) {
		t.Fatalf("the second line does not say how to try it: %q", try)
	}
	return p, address
}

func stopServe(t *testing.T, p *running) {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("serve ended with %d: %s", code, p.errs.String())
	}
}

// TestConnectAndListen runs the paper's sequence with the command line alone: a
// primary connection by connect, a second one by listen.
func TestConnectAndListen(t *testing.T) {
	server, address := startServe(t, `rules: {allow: all, from: loopback, to: loopback}`)
	defer stopServe(t, server)
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	host, port, _ := net.SplitHostPort(target.Addr().String())
	proxy := "socks4://alice@" + address

	input, typed := io.Pipe()
	connect := start(input, "connect", "--proxy", proxy, host, port)
	primary, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer primary.Close()
	say(t, primary, "220 ready\n")
	if got := connect.line(t); got != "220 ready\n" {
		t.Fatalf("connect printed %q", got)
	}

	listen := start(strings.NewReader("from the client\n"), "listen", "--proxy", proxy, host, port)
	data, err := net.Dial("tcp", waitFor(t, &listen.errs, "listening on "))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	say(t, data, "150 data\n")
	if got := listen.line(t); got != "150 data\n" {
		t.Fatalf("listen printed %q", got)
	}
	if got, err := io.ReadAll(data); err != nil || string(got) != "from the client\n" {
		t.Fatalf("the application server read %q, %v", got, err)
	}
	data.Close()
	if code := listen.exit(t); code != 0 {
		t.Errorf("listen ended with %d: %s", code, listen.errs.String())
	}

	typed.Close() // the end of the input is the end of what the target reads
	if got, err := io.ReadAll(primary); err != nil || len(got) != 0 {
		t.Errorf("the target read %q, %v", got, err)
	}
	primary.Close()
	if code := connect.exit(t); code != 0 {
		t.Errorf("connect ended with %d: %s", code, connect.errs.String())
	}
}

func TestConnectRefused(t *testing.T) {
	server, address := startServe(t, `rules: []`)
	defer stopServe(t, server)
	connect := start(strings.NewReader(""), "connect", "--proxy", "socks4a://"+address, "example.com", "80")
	if code := connect.exit(t); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if said := connect.errs.String(); !strings.Contains(said, "rejected") {
		t.Errorf("it said %q", said)
	}
}

func TestServeSaysThatAnAddressIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := start(nil, "serve", "--listen", taken.Addr().String())
	if code := p.exit(t); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if said := p.errs.String(); !strings.Contains(said, taken.Addr().String()) || !strings.Contains(said, "in use") {
		t.Errorf("it said %q", said)
	}
}

func say(t *testing.T, c net.Conn, words string) {
	t.Helper()
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatal(err)
	}
}

// waitFor returns what follows prefix on the line that begins with it, as soon
// as that line is whole.
func waitFor(t *testing.T, b *lockedBuffer, prefix string) string {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, rest, ok := strings.Cut(b.String(), prefix); ok {
			if line, _, whole := strings.Cut(rest, "\n"); whole {
				return line
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no line with %q; it said: %s", prefix, b.String())
		}
	}
}

// TestHangup reads the settings anew, and says how that went.
func TestHangup(t *testing.T) {
	p, _ := startServe(t, "{}")
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.errs.String(), "HUP: the settings are not read anew") &&
		!strings.Contains(p.errs.String(), "the settings were read anew and are in force") {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("nothing is said of HUP: %s", p.errs.String())
		}
	}
	stopServe(t, p)
}
