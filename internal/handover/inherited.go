// Package handover is how a process comes by listening sockets that it did not
// open, and whom it tells how it fares. It gets them from a service manager
// (systemd's socket activation), or from the process in whose place it is put by an
// upgrade: both hand them over in the same way, as descriptors from 3 on with their
// names in LISTEN_FDNAMES. What is told to a service manager is in notify.go, what
// two processes of an upgrade tell each other in successor.go and predecessor.go.
package handover

import (
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// upgradeEnv holds the number of the process that hands over: the parent of this
// one. It stands for LISTEN_PID, which nobody can know before this process exists.
const upgradeEnv = "SALLYPORT_UPGRADE"

// Descriptors that are no sockets, in an upgrade. No name of a socket has an @.
const (
	upName      = "@up"      // to the process before
	earlierName = "@earlier" // to one before that
	downName    = "@down"    // from the process before
	logName     = "@log"     // what was its standard error
)

// Socket is a listening socket that was handed over. The zero value is none.
type Socket struct {
	Name     string         // that the manager gave it, or that of a [Handed]
	Listener net.Listener   // of TCP or a unix socket; nil: it is one for datagrams
	Packets  net.PacketConn // nil: it is one for connections
}

// IsOpen reports whether there is a socket.
func (s Socket) IsOpen() bool { return s.Listener != nil || s.Packets != nil }

// Addr returns where it listens.
func (s Socket) Addr() net.Addr {
	if s.Packets != nil {
		return s.Packets.LocalAddr()
	}
	return s.Listener.Addr()
}

// Close closes it.
func (s Socket) Close() {
	if s.Packets != nil {
		_ = s.Packets.Close() // it is given up
		return
	}
	s.Listener.Close()
}

// Inherited is what a process was given when it was started. A nil one, and the
// zero value, is nothing. It is used by one goroutine.
type Inherited struct {
	Predecessor *Predecessor // nil: this is no upgrade

	sockets []Socket
	unfit   []string // names of descriptors that are no listening sockets
}

// Inherit takes what this process was given, once: the environment does not say so
// any more afterwards. Close must be called.
func Inherit() *Inherited {
	parent, err := strconv.Atoi(os.Getenv(upgradeEnv))
	upgrade := err == nil && parent == os.Getppid()
	_ = os.Unsetenv(upgradeEnv) // fails only for a name that is none
	if upgrade {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	return sorted(activation.Files(true), upgrade)
}

// sorted finds out what the files are, and closes those that are needed no more.
func sorted(files []*os.File, upgrade bool) *Inherited {
	in := &Inherited{}
	if upgrade {
		in.Predecessor = &Predecessor{}
	}
	for _, f := range files {
		if upgrade && in.Predecessor.take(f) {
			continue
		}
		s := Socket{Name: f.Name()}
		var err error
		if s.Listener, err = net.FileListener(f); err != nil {
			s.Packets, err = net.FilePacketConn(f)
		}
		if f.Close(); err != nil {
			in.unfit = append(in.unfit, f.Name())
			continue
		}
		in.sockets = append(in.sockets, s)
	}
	return in
}

// Take returns the first socket that fits, which is the caller's from then on.
func (in *Inherited) Take(fits func(Socket) bool) Socket {
	if in == nil {
		return Socket{}
	}
	at := slices.IndexFunc(in.sockets, fits)
	if at < 0 {
		return Socket{}
	}
	taken := in.sockets[at]
	in.sockets = slices.Delete(in.sockets, at, at+1)
	return taken
}

// Log returns what was the standard error of the process before, nil where there was
// none: what this one writes there before it has taken over, the other reads.
func (in *Inherited) Log() *os.File {
	if in == nil || in.Predecessor == nil {
		return nil
	}
	return in.Predecessor.log
}

// Close closes the sockets that nobody has taken, and says which they were.
func (in *Inherited) Close() (left []string) {
	if in == nil {
		return nil
	}
	left = in.unfit
	for _, s := range in.sockets {
		left = append(left, s.Name+" ("+s.Addr().String()+")")
		s.Close()
	}
	in.sockets, in.unfit = nil, nil
	return left
}

// Escape returns a listener's name as it stands in LISTEN_FDNAMES, which has colons
// between names.
func Escape(name string) string { return url.QueryEscape(name) }

// environment is that of a process to which sockets are handed over.
func environment(names []string) []string {
	own := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", upgradeEnv, "WATCHDOG_PID": // another will be watched
			return true
		}
		return false
	})
	return append(own,
		"LISTEN_FDS="+strconv.Itoa(len(names)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"),
		upgradeEnv+"="+strconv.Itoa(os.Getpid()))
}
