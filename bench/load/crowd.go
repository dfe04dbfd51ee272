//go:build linux

package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CrowdCommand is the first argument of this program where it is to be a crowd: its main hands the others to [BeCrowd].
const CrowdCommand = "be-a-crowd"

// crowdLine is the descriptor by which a crowd is connected to the target that it was gathered for.
const crowdLine = 3

// crowdIsThere is what the crowd says on it when all of its relays stand.
const crowdIsThere = "all there"

// Crowd is relays in which nothing moves. Their clients and their ends at the target are in a process of its own, so that
// the ends of whoever works among them are as they were without.
type Crowd struct {
	target  *Target
	process *exec.Cmd
	line    *net.UnixConn
	said    bytes.Buffer // what the process has to say of its failure
}

// Gather opens relays through p, one after the other in about the time over (0: as fast as it can), lets one byte go each way
// in each, and returns when all stand. Only one crowd is there at a time. The caller ends it by Disperse.
//
// Fixed forwarders know only one target: it accepts these connections as well, and passes them on to the crowd's process.
func (t *Target) Gather(ctx context.Context, p *Proxy, relays int, over time.Duration) (*Crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	c := &Crowd{target: t, line: ours}
	c.process = exec.CommandContext(ctx, self, CrowdCommand, p.Address.String(), string(p.Protocol), t.Address().String(), strconv.Itoa(relays), over.String())
	c.process.ExtraFiles = []*os.File{theirs}
	c.process.Stderr = &c.said
	err = c.process.Start()
	theirs.Close()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	t.passTo(ours)
	word := make([]byte, len(crowdIsThere))
	if n, err := ours.Read(word); string(word[:n]) != crowdIsThere {
		return nil, fmt.Errorf("the crowd: %w", cmp.Or(c.Disperse(), err, errors.New("an unknown answer")))
	}
	return c, nil
}

// Disperse ends the relays, and returns when the proxy has passed all of their ends on.
func (c *Crowd) Disperse() error {
	c.target.passTo(nil)
	c.line.Close()
	if err := c.process.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(c.said.Bytes()))
	}
	return nil
}

// passTo has the target pass on its idle connections by line; nil: it closes them.
func (t *Target) passTo(line *net.UnixConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.crowd = line
}

// passOn gives the crowd a connection. Without one, or where that fails, it is closed by the caller and nothing else: its
// client misses a byte.
func (t *Target) passOn(conn *net.TCPConn) {
	t.mu.Lock()
	line := t.crowd
	t.mu.Unlock()
	raw, err := conn.SyscallConn()
	if line == nil || err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = line.WriteMsgUnix([]byte{idle}, unix.UnixRights(int(fd)), nil)
	})
}

// socketPair returns two ends that keep messages apart. The first is non-blocking, the other for another process.
func socketPair() (*net.UnixConn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "crowd")
	ours, err := lineOf(pair[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// lineOf takes fd over.
func lineOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "line")
	defer f.Close() // the connection has a duplicate
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	line, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no unix socket", fd), conn.Close())
	}
	return line, nil
}

// BeCrowd is all that the process of a crowd does. It returns when whoever has gathered it has closed the line, and the
// relays have ended.
func BeCrowd(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return errors.New("a crowd is told the proxy, its protocol, the target, how many relays, and over which time")
	}
	proxy, proxyErr := netip.ParseAddrPort(args[0])
	target, targetErr := netip.ParseAddrPort(args[2])
	relays, relaysErr := strconv.Atoi(args[3])
	over, overErr := time.ParseDuration(args[4])
	line, lineErr := lineOf(crowdLine)
	if err := errors.Join(proxyErr, targetErr, relaysErr, overErr, lineErr); err != nil {
		return err
	}
	defer line.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	arrived := make(chan []int, 1)
	go func() {
		defer stop()
		arrived <- receive(line)
	}()
	conns, err := (&Proxy{Address: proxy, Protocol: Protocol(args[1])}).rest(ctx, target, relays, over)
	if err == nil {
		_, err = line.Write([]byte(crowdIsThere))
	}
	if err != nil {
		closeAll(conns)
		return err
	}
	ends := <-arrived
	closeAll(conns)
	return allEnd(ends, time.Now().Add(patience))
}

// rest opens relays to target, one after the other, in each of which one byte went each way. It returns those that it has
// opened on a fault, too.
func (p *Proxy) rest(ctx context.Context, target netip.AddrPort, relays int, over time.Duration) (conns []*net.TCPConn, err error) {
	began := time.Now()
	for i := range relays {
		if err := wait(ctx, time.Until(began.Add(over/time.Duration(relays)*time.Duration(i)))); err != nil {
			return conns, err
		}
		conn, err := p.Dial(ctx, target)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
		if err := bounce(conn, []byte{idle}); err != nil {
			return conns, err
		}
		_ = conn.SetDeadline(time.Time{}) // no timer is left behind
	}
	return conns, nil
}

// receive takes the ends at the target that come by line, and says the one byte in each. It returns them when line is closed.
func receive(line *net.UnixConn) (ends []int) {
	word, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		_, n, _, _, err := line.ReadMsgUnix(word, rights)
		if err != nil {
			return ends
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil || len(messages) != 1 {
			continue
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			_, _ = unix.Write(fd, word) // its client finds out
		}
		ends = append(ends, fds...)
	}
}

// allEnd waits until each of ends has ended, and closes it.
func allEnd(ends []int, until time.Time) error {
	for i, fd := range ends {
		waiting := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(waiting, int(max(0, time.Until(until)).Milliseconds()))
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(waiting, int(max(0, time.Until(until)).Milliseconds()))
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("the proxy has not ended %d of %d relays: %w", len(ends)-i, len(ends), os.ErrDeadlineExceeded)
		}
		if n, err := unix.Read(fd, make([]byte, 1)); err == nil && n > 0 {
			return fmt.Errorf("%d bytes that nobody sent: %w", n, io.ErrUnexpectedEOF)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}
