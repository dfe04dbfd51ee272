package server

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// aside is a listening socket that can be taken out of the runtime's poller. That
// watches a descriptor until it is closed, so it has to be another one.
type aside struct {
	net.Listener // until then; a *net.TCPListener
	raw          syscall.RawConn

	mu    sync.RWMutex // held while taken is used
	taken int          // the other descriptor; -1: it was not taken, or is closed
}

func newAside(socket *net.TCPListener) net.Listener {
	raw, err := socket.SyscallConn()
	if err != nil {
		return socket
	}
	_ = raw.Control(func(fd uintptr) { handDown(int(fd)) }) // else it is closed
	return &aside{Listener: socket, raw: raw, taken: -1}
}

// take takes the socket out of the poller: nobody can wait in Accept any more. Where
// there is no descriptor to be had for that, it stays.
func (a *aside) take() {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.raw.Control(func(watched uintptr) { // else it is closed
		if fd, err := unix.FcntlInt(watched, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			a.taken = fd
		}
	})
	if a.taken >= 0 {
		_ = a.Listener.Close() // the socket has another descriptor
	}
}

// Close ends accepting.
func (a *aside) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken < 0 {
		return a.Listener.Close()
	}
	fd := a.taken
	a.taken = -1
	return unix.Close(fd)
}

// SyscallConn returns access to the descriptor, whichever it is when that is used.
func (a *aside) SyscallConn() (syscall.RawConn, error) { return asideRaw{a.raw, a}, nil }

// asideRaw is access to an aside. Of a listening socket nobody reads and writes.
type asideRaw struct {
	syscall.RawConn // until it is taken
	aside           *aside
}

// Control calls f with the descriptor.
func (r asideRaw) Control(f func(fd uintptr)) error {
	r.aside.mu.RLock()
	defer r.aside.mu.RUnlock()
	if r.aside.taken < 0 {
		return r.RawConn.Control(f)
	}
	f(uintptr(r.aside.taken))
	return nil
}
