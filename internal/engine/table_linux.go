package engine

import (
	"os"

	"golang.org/x/sys/unix"
)

// Handle stands for a descriptor that a loop watches: its place in the loop's table, and how often that was used before. So an
// event that was taken before a descriptor was forgotten finds nobody, and not the next one in its place. None is 0.
type Handle uint64

// slot is a place in the table.
type slot struct {
	record Record // nil: it is free
	fd     int32
	age    uint32 // how often the place was given
}

// table is the descriptors that a loop watches. The zero value is empty.
type table struct {
	slots []slot
	free  []uint32
}

func (t *table) add(r Record, fd int) Handle {
	var place uint32
	if last := len(t.free) - 1; last >= 0 {
		place = t.free[last]
		t.free = t.free[:last]
	} else {
		place = uint32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	s := &t.slots[place]
	s.record, s.fd, s.age = r, int32(fd), max(1, s.age+1) // 0 would make of the first place no handle at all
	return Handle(uint64(s.age)<<32 | uint64(place))
}

// at returns the slot of h, or nil when h stands for nothing any more.
func (t *table) at(h Handle) *slot {
	place := uint64(uint32(h))
	if place >= uint64(len(t.slots)) {
		return nil
	}
	s := &t.slots[place]
	if s.record == nil || s.age != uint32(h>>32) {
		return nil
	}
	return s
}

func (t *table) record(h Handle) Record {
	if s := t.at(h); s != nil {
		return s.record
	}
	return nil
}

// remove frees the place of h, and returns the descriptor that was there, or -1.
func (t *table) remove(h Handle) int {
	s := t.at(h)
	if s == nil {
		return -1
	}
	s.record = nil
	t.free = append(t.free, uint32(h))
	return int(s.fd)
}

// watched is what every descriptor is watched for, so that epoll is told of most of them once in their lives.
const watched = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// Add has the descriptor fd, which must be non-blocking, watched for r. What is there already counts as having come. Of room to
// write it is told where more is Writable: a new socket has that, and to be told so costs as much as to be told of a byte; see
// AwaitRoom. The descriptor is the caller's until Add has succeeded, and then the loop's until Close or Release.
func (l *Loop) Add(fd int, r Record, more Events) (Handle, error) {
	h := l.table.add(r, fd)
	if err := l.watch(unix.EPOLL_CTL_ADD, fd, h, more); err != nil {
		l.table.remove(h)
		return 0, os.NewSyscallError("epoll_ctl", err)
	}
	return h, nil
}

// watch tells epoll of a descriptor.
func (l *Loop) watch(how, fd int, h Handle, more Events) error {
	return unix.EpollCtl(l.fd, how, fd, &unix.EpollEvent{Events: watched | uint32(more), Fd: int32(uint32(h)), Pad: int32(h >> 32)}) // 64 bits that are ours
}

// AwaitRoom has h told of room to write from now on, too: for who has met that there is none. What is there by now counts as
// having come.
func (l *Loop) AwaitRoom(h Handle) {
	if s := l.table.at(h); s != nil {
		_ = l.watch(unix.EPOLL_CTL_MOD, int(s.fd), h, Writable) // it was added
	}
}

// Descriptor returns the descriptor that h stands for, or -1.
func (l *Loop) Descriptor(h Handle) int {
	if s := l.table.at(h); s != nil {
		return int(s.fd)
	}
	return -1
}

// Hand gives h to another record of the same loop: the events that come from now on, those of this turn among them, are told to r.
// What was told to the other one is not told again; see Requeue.
func (l *Loop) Hand(h Handle, r Record) {
	if s := l.table.at(h); s != nil {
		s.record = r
	}
}

// Requeue has e told of h once more, behind all others in the queue and what has come in this turn: for who has had its share,
// or can wait while others cannot.
func (l *Loop) Requeue(h Handle, e Events) { l.queue = append(l.queue, requeued{h, e}) }

// Close closes the descriptor that h stands for. Nothing is told of it any more.
func (l *Loop) Close(h Handle) {
	if fd := l.table.remove(h); fd >= 0 {
		closeNow(fd) // as it was the last reference, epoll forgets it, too; and else nobody hears of it
	}
}

// Lookout returns a descriptor of epoll's that can be read when fd can. Who watches that in fd's stead can end it at any time by
// closing it. Of fd itself epoll would go on telling until all have closed the socket, other processes too, and once its number is
// not ours any more nothing could be done about it.
func Lookout(fd int) (int, error) {
	out, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.EpollCtl(out, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		closeNow(out)
		return -1, os.NewSyscallError("epoll_ctl", err)
	}
	return out, nil
}

// Release stops watching and returns the descriptor, or -1. It is the caller's.
func (l *Loop) Release(h Handle) int {
	fd := l.table.remove(h)
	if fd >= 0 {
		_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil) // it was added
	}
	return fd
}
