package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wantNoPipes requires that nobody holds a pipe, and that those that nobody wants are closed.
func wantNoPipes(t *testing.T) {
	t.Helper()
	waitFor(t, func() bool { return pipes.count.Load() == 0 },
		func() string { return fmt.Sprintf("%d pipes are held", pipes.count.Load()) })
}

// push moves size bytes from one connection to another through whatever is between them.
func push(t *testing.T, from, to socketConn, size int) {
	t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = from.SetWriteDeadline(time.Now().Add(20 * time.Second))
		if _, err := from.Write(data); err != nil {
			t.Errorf("pushing %d bytes: %v", size, err)
		}
	})
	got := make([]byte, size)
	_ = to.SetReadDeadline(time.Now().Add(20 * time.Second)) // the watchdog
	if n, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes arrived (%v), or not those that were sent", n, size, err)
	}
	wg.Wait()
}

// TestPipesAreBorrowed: bulk takes pipes, and relays that have moved bulk and rest hold none.
func TestPipesAreBorrowed(t *testing.T) {
	wantNoPipes(t)
	ln := listen(t, "tcp")
	var rigs []*socketRig
	took := false
	for range 50 {
		r := newSocketRig(t, ln, looped).run(t.Context(), "", Limits{Idle: time.Hour})
		rigs = append(rigs, r)
		push(t, r.client, r.target, 2<<20)
		took = took || pipes.count.Load() > 0
		push(t, r.target, r.client, 2<<20)
	}
	if !took {
		t.Error("bulk was moved without a pipe")
	}
	wantNoPipes(t)
	for _, r := range rigs {
		r.cancel(nil)
		_ = r.end(t)
		wantMeter(t, &r.meter, 2<<20, 2<<20)
	}
}

// TestBlockedPipeIsNotLost: a relay that ends while its pipe has bytes in it holds it no longer.
func TestBlockedPipeIsNotLost(t *testing.T) {
	wantNoPipes(t)
	r := newSocketRig(t, listen(t, "tcp"), looped).run(t.Context(), "", Limits{Idle: time.Hour})
	fill(t, r.client)
	if pipes.count.Load() == 0 {
		t.Error("a blocked bulk has no pipe")
	}
	r.cancel(nil)
	_ = r.end(t)
	wantNoPipes(t)
}

func TestPartlyDrainedPipeIsClosed(t *testing.T) {
	wantNoPipes(t)
	near, far := socketPair(t, listen(t, "unix"))
	p := borrowPipe()
	if p == nil {
		t.Fatal("no pipe to be had")
	}
	say(t, far, "left over")
	raw, err := near.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := p.fill(int(fd), pipeSize)
		return n > 0 || !errors.Is(err, unix.EAGAIN)
	})
	if err != nil || p.held != len("left over") {
		t.Errorf("the pipe has %d bytes, %v", p.held, err)
	}
	p.giveBack()
	if other := borrowPipe(); other == p || other.held != 0 {
		t.Error("a pipe with bytes left in it was lent again")
	} else {
		other.giveBack()
	}
}

func TestPipesAreBounded(t *testing.T) {
	wantNoPipes(t)
	var held []*pipe
	for range pipeLimit() + 10 {
		if p := borrowPipe(); p != nil {
			held = append(held, p)
		}
	}
	if len(held) != pipeLimit() {
		t.Errorf("%d pipes at once, want %d", len(held), pipeLimit())
	}
	for _, p := range held {
		p.giveBack()
	}
	wantNoPipes(t)
	if p := borrowPipe(); p == nil {
		t.Error("no pipe to be had, though all were given back")
	} else {
		p.giveBack()
	}
	wantNoPipes(t)
}

// TestManyStreams moves bulk both ways in more streams than there are pipes. None may stop.
func TestManyStreams(t *testing.T) {
	ln := listen(t, "tcp")
	size := 4 << 20
	if testing.Short() {
		size = 512 << 10
	}
	var wg sync.WaitGroup
	var rigs []*socketRig
	for range maxPipes {
		r := newSocketRig(t, ln, looped).run(t.Context(), "", Limits{Idle: time.Hour})
		rigs = append(rigs, r)
		for _, c := range [][2]socketConn{{r.client, r.target}, {r.target, r.client}} {
			wg.Go(func() { push(t, c[0], c[1], size) })
		}
	}
	wg.Wait()
	for _, r := range rigs {
		_ = r.client.CloseWrite()
		_ = r.target.CloseWrite()
		if err := r.end(t); err != nil {
			t.Error(err)
		}
		wantMeter(t, &r.meter, int64(size), int64(size))
	}
}

// stranger returns a user that has what the system gives to everybody, and no other process: pipes of those would count towards
// the same budget. It is one that a container with few users has, too.
func stranger() uint32 { return uint32(40_000 + os.Getpid()%20_000) }

// asStranger says in the environment that this process is the child of TestAsStranger.
const asStranger = "SALLYPORT_TEST_AS_STRANGER"

// TestAsStranger runs TestShortOfPipes as an ordinary user: root has all the pipes that it wants.
func TestAsStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		testShortOfPipes(t)
		return
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "relay.test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestShortOfPipes$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asStranger+"=yes", "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger(), Gid: stranger()}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestShortOfPipes")) {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

func TestShortOfPipes(t *testing.T) {
	if os.Getenv(asStranger) == "" {
		t.Skip("runs as the child of TestAsStranger")
	}
	testShortOfPipes(t)
}

// testShortOfPipes relays where no useful pipe is to be had: the user's budget is used up, and then the descriptors.
func testShortOfPipes(t *testing.T) {
	ln := listen(t, "tcp")
	release := useUpPipes(t)
	if p := borrowPipe(); p != nil {
		t.Fatal("there is still a useful pipe")
	}
	for seed := range uint64(50) {
		testShape(t, ln, seed, looped)
	}
	r := newSocketRig(t, ln, looped).run(t.Context(), "", Limits{Idle: time.Hour})
	push(t, r.client, r.target, 8<<20)
	if n := pipes.count.Load(); n != 0 {
		t.Errorf("%d pipes are counted, want none", n)
	}
	release()

	pipes.again.Store(0)
	if p := borrowPipe(); p == nil {
		t.Error("no pipe to be had, though the budget is free again")
	} else {
		p.giveBack()
	}
	wantNoPipes(t)
	restore := useUpDescriptors(t)
	push(t, r.target, r.client, 8<<20)
	if n := pipes.count.Load(); n != 0 {
		t.Errorf("%d pipes are counted, want none", n)
	}
	restore()
	r.cancel(nil)
	_ = r.end(t)
	wantMeter(t, &r.meter, 8<<20, 8<<20)
}

// useUpPipes holds pipes until a further one is too small to be of use.
func useUpPipes(t *testing.T) (release func()) {
	t.Helper()
	var held []int
	release = func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
		held = nil
	}
	t.Cleanup(func() { release() })
	for range 1000 {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		held = append(held, fds[:]...)
		_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, 1<<20)
		if size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0); err != nil || size < pipeUseful {
			return release
		}
	}
	t.Fatal("the pipe budget has no end: is this an ordinary user?")
	return release
}

// useUpDescriptors forbids the process to open any more.
func useUpDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
}
