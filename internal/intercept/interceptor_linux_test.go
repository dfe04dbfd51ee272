//go:build amd64 || arm64

package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/proxytest"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// playName is the variable that says which of the plays this program is to be.
const playName = "SALLYPORT_TEST_PLAY"

// plays are commands to be watched. Each prints what it finds.
var plays = map[string]func(arguments []string) int{
	"connect": playConnect,
	"status":  playStatus,
	"silent":  playSilent,
	"ask":     playAsk,
	"signal":  playSignal,
	"limited": playLimited,
	"thread":  playThread,
}

// playConnect connects to each target, says a word, and prints the answer.
func playConnect(targets []string) int {
	for _, target := range targets {
		c, err := net.Dial("tcp", target)
		if err != nil {
			if errno, ok := errors.AsType[unix.Errno](err); ok {
				fmt.Println(unix.ErrnoName(errno))
			} else {
				fmt.Println(err)
			}
			continue
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.(*net.TCPConn).CloseWrite()
		said, err := io.ReadAll(c)
		fmt.Println(string(said), err, c.RemoteAddr())
		c.Close()
	}
	return 0
}

// playStatus has a status to end with.
func playStatus(arguments []string) int {
	status, _ := strconv.Atoi(arguments[0])
	return status
}

// playAsk makes a call that the kernel asks about as often as it is told.
func playAsk(arguments []string) int {
	times, _ := strconv.Atoi(arguments[0])
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	for range times {
		if err == nil {
			_, err = unix.Getpeername(pair[0])
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// playSilent connects to a target that does not answer, in the way of C: the flags of the
// socket are as they were, and a second time it is connected already.
func playSilent([]string) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	to := &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, 1}}
	fmt.Println(unix.Connect(fd, to))
	fmt.Println(unix.Connect(fd, to))
	to.Port++
	fmt.Println(unix.Connect(fd, to))
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	fmt.Println(flags&unix.O_NONBLOCK != 0, err)
	return 0
}

// playThread connects in a thread that is not the first and has descriptors of its own.
func playThread([]string) int {
	runtime.LockOSThread()
	connected := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the program
		err := unix.Unshare(unix.CLONE_FILES)
		fd := -1
		if err == nil {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, 1}})
		}
		connected <- err
	}()
	fmt.Println(<-connected)
	return 0
}

// playSignal connects in a thread that gets a signal when the input ends.
func playSignal([]string) int {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, unix.SIGTERM)
	runtime.LockOSThread()
	thread := unix.Gettid()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)               // it is empty
		_ = unix.Tgkill(os.Getpid(), thread, unix.SIGTERM) // the test would wait in vain
	}()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, 1}})
	}
	fmt.Println(<-heard, err)
	return 0
}

// playLimited connects with a socket that has a limit for it.
func playLimited([]string) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 1000})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, 1}})
	}
	fmt.Println(err)
	return 0
}

// open is Open, of which it takes it that the system is able to do what it needs. Where
// nothing but Go is asked for, it need not be.
func open(tb testing.TB, dial Dial) *Interceptor {
	tb.Helper()
	i, err := Open(tb.Context(), dial)
	switch {
	case err != nil && testing.Short():
		tb.Skip(err)
	case err != nil:
		tb.Fatal(err)
	}
	return i
}

// serves is open, and Serve until end is called or ctx ends.
func serves(tb testing.TB, dial Dial) (i *Interceptor, ctx context.Context, end func()) {
	tb.Helper()
	i = open(tb, dial)
	ctx, cancel := context.WithCancel(tb.Context())
	var serving sync.WaitGroup
	serving.Go(func() { i.Serve(ctx) })
	return i, ctx, func() {
		cancel()
		serving.Wait()
	}
}

// watch runs a play through a Dial and returns what it printed, and how it ended.
func watch(tb testing.TB, dial Dial, play string, arguments ...string) (string, error) {
	tb.Helper()
	i, ctx, end := serves(tb, dial)
	defer end()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	command := exec.CommandContext(ctx, self, arguments...)
	command.Env = append(os.Environ(), playName+"="+play, "GODEBUG=netdns=go")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := i.Start(command); err != nil {
		tb.Fatal(err)
	}
	err = command.Wait()
	return out.String(), err
}

// echo is a Dial whose targets say what they were asked as.
func echo(_ context.Context, target socks.Addr) (net.Conn, error) {
	at := netip.MustParseAddrPort("192.0.2.9:9") // nobody looks
	here, there := proxytest.Pipe(at, at, 1<<10)
	go func() {
		defer there.Close()
		b := make([]byte, len("hello"))
		if _, err := io.ReadFull(there, b); err == nil {
			_, _ = fmt.Fprintf(there, "%s, %v", b, target) // the command tells
		}
	}()
	return here, nil
}

func TestConnects(t *testing.T) {
	got, err := watch(t, echo, "connect", "192.0.2.1:80", "[2001:db8::1]:443", "www.example.com:80", "[::ffff:192.0.2.2]:81")
	want := `hello, 192.0.2.1:80 <nil> 192.0.2.1:80
hello, [2001:db8::1]:443 <nil> [2001:db8::1]:443
hello, www.example.com:80 <nil> 198.18.0.1:80
hello, 192.0.2.2:81 <nil> 192.0.2.2:81
`
	if got != want || err != nil {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestRefusals(t *testing.T) {
	reasons := map[uint16]error{
		1: server.Refused, 2: server.Unreachable, 3: server.TimedOut, 4: server.Denied, 5: server.NoName, 6: server.UpstreamFailed, 7: server.BadLogin,
		8: fmt.Errorf("with more words: %w", server.Refused), 9: errors.New("without a reason"),
	}
	refuse := func(_ context.Context, target socks.Addr) (net.Conn, error) { return nil, reasons[target.Port] }
	var targets []string
	for port := range len(reasons) {
		targets = append(targets, fmt.Sprintf("192.0.2.1:%d", port+1))
	}
	got, err := watch(t, refuse, "connect", targets...)
	want := "ECONNREFUSED EHOSTUNREACH ETIMEDOUT EACCES EHOSTUNREACH ENETUNREACH ENETUNREACH ECONNREFUSED ENETUNREACH"
	if strings.Join(strings.Fields(got), " ") != want || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestNonBlockingConnect(t *testing.T) {
	got, err := watch(t, echo, "silent")
	if want := "<nil>\n<nil>\ntransport endpoint is already connected\ntrue <nil>\n"; got != want || err != nil {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestLoopbackIsLeftAlone(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // the command tells
	}()
	none := func(context.Context, socks.Addr) (net.Conn, error) { return nil, server.Denied }
	got, err := watch(t, none, "connect", ln.Addr().String(), "192.0.2.1:80")
	if want := fmt.Sprintf("hello <nil> %v\nEACCES\n", ln.Addr()); got != want || err != nil {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// TestStatus also sees that nothing stays open, whatever was connected or refused.
func TestStatus(t *testing.T) {
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	_, _ = watch(t, echo, "status", "0") // what is opened once and for all
	before := descriptors()
	_, err := watch(t, echo, "status", "7")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("it ended with %v", err)
	}
	if _, err := watch(t, echo, "connect", "192.0.2.1:80", "127.0.0.1:1", "www.example.com:80"); err != nil {
		t.Error(err)
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// TestThreadWithItsOwnDescriptors sees that such a thread is led like any other, or,
// before Linux 6.9, refused: it does not go past the proxy.
func TestThreadWithItsOwnDescriptors(t *testing.T) {
	got, err := watch(t, echo, "thread")
	if got != "<nil>\n" && got != unix.EBADF.Error()+"\n" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestCrowd refuses one connection more than may be on their way.
func TestCrowd(t *testing.T) {
	i, ctx, end := serves(t, echo)
	defer end()
	for range maxConnects {
		i.connects <- struct{}{}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, self, "192.0.2.1:80")
	command.Env = append(os.Environ(), playName+"=connect")
	var out bytes.Buffer
	command.Stdout = &out
	if err := i.Start(command); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil || out.String() != "EADDRNOTAVAIL\n" {
		t.Errorf("got %s, %v", out.String(), err)
	}
}

// TestKilledWhileItConnects sees that nobody goes on dialling for a command that is gone.
func TestKilledWhileItConnects(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	dial := func(ctx context.Context, _ socks.Addr) (net.Conn, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	i, ctx, end := serves(t, dial)
	defer end()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, self, "192.0.2.1:80")
	command.Env = append(os.Environ(), playName+"=connect")
	if err := i.Start(command); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it is dialled still")
	}
}

// TestSignalWhileItConnects has a signal handled before the proxy answers. The call is then
// made anew, as Go's programs want it.
func TestSignalWhileItConnects(t *testing.T) {
	begun := make(chan struct{})
	var asked atomic.Bool
	dial := func(ctx context.Context, target socks.Addr) (net.Conn, error) {
		if asked.Swap(true) {
			return echo(ctx, target)
		}
		close(begun)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Second):
			return nil, server.TimedOut
		}
	}
	i, ctx, end := serves(t, dial)
	defer end()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, self)
	command.Env = append(os.Environ(), playName+"=signal")
	in, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out bytes.Buffer
	command.Stdin, command.Stdout = in, &out
	if err := i.Start(command); err != nil {
		t.Fatal(err)
	}
	<-begun
	say.Close()
	if err := command.Wait(); err != nil || out.String() != "terminated <nil>\n" {
		t.Errorf("got %s, %v", out.String(), err)
	}
}

// TestLimitOfTheSocket is what a program waits for the proxy, if it has one.
func TestLimitOfTheSocket(t *testing.T) {
	silent := func(ctx context.Context, _ socks.Addr) (net.Conn, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Second):
			return nil, server.TimedOut
		}
	}
	if got, err := watch(t, silent, "limited"); got != unix.EINPROGRESS.Error()+"\n" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestUrgentSignals are those for which a call is given back.
func TestUrgentSignals(t *testing.T) {
	const interrupt, timer = "0000000000000002", "0000000000002000"
	for _, c := range []struct {
		name string
		of   status
		want bool
	}{
		{"none", status{"Tgid": "7", "Pid": "7"}, false},
		{"for the thread", status{"Tgid": "7", "Pid": "8", "SigPnd": interrupt}, true},
		{"for the process, and so for its first thread", status{"Tgid": "7", "Pid": "7", "ShdPnd": interrupt}, true},
		{"for the process, but another thread", status{"Tgid": "7", "Pid": "8", "ShdPnd": interrupt}, false},
		{"blocked", status{"Tgid": "7", "Pid": "7", "ShdPnd": interrupt, "SigBlk": interrupt}, false},
		{"ignored", status{"Tgid": "7", "Pid": "7", "ShdPnd": interrupt, "SigIgn": interrupt}, false},
		{"a timer's", status{"Tgid": "7", "Pid": "7", "ShdPnd": timer}, false},
	} {
		if got := c.of.isInterrupted(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestStartThatFails(t *testing.T) {
	i := open(t, echo)
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { i.Serve(ctx) })
	if err := i.Start(exec.CommandContext(ctx, t.TempDir())); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a folder was started: %v", err)
	}
	cancel()
	serving.Wait()
	if err := i.Start(exec.Command("true")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// BenchmarkAsk measures a call that the kernel asks about, and that is then made; compare
// it with getpeername in no such command.
func BenchmarkAsk(b *testing.B) {
	if out, err := watch(b, echo, "ask", strconv.Itoa(b.N)); err != nil {
		b.Fatal(out, err)
	}
}
