package relay

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lot is where the relays of the process sleep. It is open while any does.
var lot struct {
	mu       sync.Mutex
	file     *os.File // of epoll; nil: the lot is closed
	fd       int      // file's
	last     uint64   // the place that was given last; none is given twice, so an event that comes late finds nobody
	sleepers map[uint64]*session
}

// lotEvents are taken at once.
const lotEvents = 128

// wanted are the events that wake a relay, once: what is there already counts.
const wanted = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

// canSleep reports whether what comes to p can be waited for without a goroutine.
func canSleep(p port) bool {
	_, ok := p.(*socket)
	return ok
}

// lieDown has the connections of s watched, and returns the place by which wake is called; 0 where that cannot be.
// Callers hold the mu of s.
func lieDown(s *session) uint64 {
	lot.mu.Lock()
	defer lot.mu.Unlock()
	if lot.file == nil && openLot() != nil {
		return 0
	}
	lot.last++
	place := lot.last
	lot.sleepers[place] = s
	if !control(s, unix.EPOLL_CTL_ADD, place) {
		control(s, unix.EPOLL_CTL_DEL, place)
		forget(place)
		return 0
	}
	return place
}

// getUp undoes lieDown. Callers hold the mu of s.
func getUp(s *session, place uint64) {
	lot.mu.Lock()
	defer lot.mu.Unlock()
	control(s, unix.EPOLL_CTL_DEL, place)
	forget(place)
}

// control changes for both connections of s how they are watched. A connection that is closed is watched no more.
func control(s *session, op int, place uint64) (ok bool) {
	ok = true
	for _, p := range []port{s.up.from.port, s.up.to.port} {
		var failed error
		err := p.(*socket).raw.Control(func(fd uintptr) {
			event := unix.EpollEvent{Events: wanted, Fd: int32(place), Pad: int32(place >> 32)} // of 64 bits
			failed = unix.EpollCtl(lot.fd, op, int(fd), &event)
		})
		ok = ok && err == nil && failed == nil
	}
	return ok
}

// forget gives up a place, and closes the lot after the last one. Callers hold lot.mu.
func forget(place uint64) {
	delete(lot.sleepers, place)
	if len(lot.sleepers) == 0 {
		_ = lot.file.Close() // and so watchLot ends
		lot.file, lot.sleepers = nil, nil
	}
}

// openLot starts the goroutine that watches. Callers hold lot.mu.
func openLot() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else the runtime would not wait for it in its own poller
		_ = unix.Close(fd)
		return err
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return err
	}
	lot.file, lot.fd, lot.sleepers = file, fd, make(map[uint64]*session)
	go watchLot(raw)
	return nil
}

// watchLot wakes relays until the lot is closed.
func watchLot(raw syscall.RawConn) {
	var n int
	events := make([]unix.EpollEvent, lotEvents)
	poll := func(fd uintptr) bool {
		err := error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.EpollWait(int(fd), events, 0)
		}
		return n > 0
	}
	for raw.Read(poll) == nil {
		for i := range events[:n] {
			place := uint64(uint32(events[i].Fd)) | uint64(uint32(events[i].Pad))<<32
			if s := sleeper(place); s != nil {
				s.wake(place)
			}
		}
	}
}

// sleeper returns who sleeps in the place, or nil.
func sleeper(place uint64) *session {
	lot.mu.Lock()
	defer lot.mu.Unlock()
	return lot.sleepers[place]
}
