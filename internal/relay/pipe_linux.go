package relay

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/engine"
)

// A pipe moves bulk from one socket to another without copying it. It is borrowed while bytes are in it and given back
// when it is empty: a user may have only so many pages in pipes (16,384, which is what 64 pipes of a mebibyte hold), and
// a pipe for each direction for life, which is what io.Copy takes, uses them up with 32 relays. Every further pipe is
// then of 8 KiB, and slower than memory.
const (
	// pipeSize is how much a pipe is to hold, in bytes: the most that the system gives to everybody. With half of it bulk
	// costs a fifth more.
	pipeSize = 1 << 20

	// pipeUseful is the size below which a pipe is worth less than a buffer of 256 KiB.
	pipeUseful = 64 << 10

	// maxPipes bounds the pipes of the process, in use or in the pool, and fairPipes those of a process of such a user,
	// to half of the user's pages. A direction that finds none uses memory.
	maxPipes  = 64
	fairPipes = 32

	// pipesPause is for how long nobody asks the system again after it has refused a useful pipe.
	pipesPause = time.Second

	// pipesRest is for how long a pipe stays open that nobody wants, twice that at the most.
	pipesRest = time.Second
)

// pipes are those of the process.
var pipes struct {
	count atomic.Int64 // of all, lent or idle
	again atomic.Int64 // when the system may be asked again, in nanoseconds since the epoch; 0: at any time

	mu       sync.Mutex
	idle     []*pipe // given back; the last one first is lent again
	needless int     // how many of idle were so ever since the last sweep
	sweeping bool    // sweep is called again
}

// pipe is one of them, which one direction has for itself.
type pipe struct {
	out, in int // descriptors
	held    int // bytes that are in it
}

func (p *pipe) close() {
	_ = unix.Close(p.out)
	_ = unix.Close(p.in)
	pipes.count.Add(-1)
}

// Descriptors returns how many descriptors relays may hold besides those of their connections.
func Descriptors() int { return 2*pipeLimit() + engine.Descriptors() }

// pipeLimit is maxPipes or fairPipes, or less where the process may not have many descriptors.
var pipeLimit = sync.OnceValue(func() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0
	}
	most := uint64(fairPipes)
	if unlimitedPages() {
		most = maxPipes
	}
	return int(min(files.Cur/64, most)) // 2 of 64 descriptors
})

// unlimitedPages reports whether the process may have as many pages in pipes as it wants. In a user namespace it may be told so
// and not be right: then the system refuses.
func unlimitedPages() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false
	}
	return sets[0].Effective&(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_SYS_RESOURCE) != 0
}

// borrowPipe returns an empty pipe that its borrower gives back, or nil when there is none to be had.
func borrowPipe() *pipe {
	if p := idlePipe(); p != nil {
		return p
	}
	if pipes.again.Load() > time.Now().UnixNano() {
		return nil
	}
	if pipes.count.Add(1) > int64(pipeLimit()) {
		pipes.count.Add(-1)
		return nil
	}
	p := newPipe()
	if p == nil {
		pipes.again.Store(time.Now().Add(pipesPause).UnixNano())
	}
	return p
}

// idlePipe returns one that was given back, or nil.
func idlePipe() *pipe {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	last := len(pipes.idle) - 1
	if last < 0 {
		return nil
	}
	p := pipes.idle[last]
	pipes.idle[last] = nil
	pipes.idle = pipes.idle[:last]
	pipes.needless = min(pipes.needless, last)
	return p
}

// newPipe returns nil where the system has no descriptors left, or only a small pipe.
func newPipe() *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		pipes.count.Add(-1)
		return nil
	}
	p := &pipe{out: fds[0], in: fds[1]}
	_, _ = unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, pipeSize) // what came of it is asked next
	if size, err := unix.FcntlInt(uintptr(p.in), unix.F_GETPIPE_SZ, 0); err != nil || size < pipeUseful {
		p.close()
		return nil
	}
	return p
}

// giveBack ends the borrowing. A pipe with bytes left in it, which somebody else would get, is closed.
func (p *pipe) giveBack() {
	if p.held > 0 {
		p.close()
		return
	}
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	pipes.idle = append(pipes.idle, p)
	if !pipes.sweeping {
		pipes.sweeping, pipes.needless = true, 0
		time.AfterFunc(pipesRest, sweepPipes)
	}
}

// sweepPipes closes the pipes that nobody wanted since it was last called.
func sweepPipes() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	for _, p := range pipes.idle[:pipes.needless] {
		p.close()
	}
	pipes.idle = slices.Delete(pipes.idle, 0, pipes.needless)
	pipes.needless = len(pipes.idle)
	if pipes.sweeping = len(pipes.idle) > 0; pipes.sweeping {
		time.AfterFunc(pipesRest, sweepPipes)
	}
}

// splice moves up to most bytes from one descriptor to the other, again where it was interrupted. Neither is waited for.
func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}

// fill moves what is there from the socket into the empty pipe, up to most bytes.
func (p *pipe) fill(socket, most int) (int, error) {
	n, err := splice(socket, p.in, most)
	p.held += max(0, n)
	return n, err
}

// drain moves what there is room for from the pipe into the socket.
func (p *pipe) drain(socket int) (int, error) {
	n, err := splice(p.out, socket, p.held)
	p.held -= max(0, n)
	if n == 0 && err == nil && p.held > 0 {
		err = os.ErrClosed // never seen; but a loop must end
	}
	return n, err
}
