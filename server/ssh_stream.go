package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// resetRequest is what both ends of ours say before they close a channel that
// has not come to its end: SSH knows no reset. It is answered, so that it is taken
// before the CLOSE is.
const resetRequest = "reset@sallyport.github.io"

// eowRequest says that nobody reads any more what is sent on a channel (OpenSSH's
// PROTOCOL, section 2.1).
const eowRequest = "eow@openssh.com"

var (
	errConnectionGone = fmt.Errorf("the SSH connection has ended: %w", syscall.ECONNRESET)
	errChannelReset   = fmt.Errorf("the other end reset its side: %w", syscall.ECONNRESET)
	errNobodyReads    = fmt.Errorf("nobody reads it any more: %w", syscall.EPIPE)
)

// sshStream is a channel of an SSH connection, as a connection of its own. One
// that the client has opened awaits its answer: the first thing that is written is
// that, as [sshReplier] has it, and nothing can be read before.
//
// EOF is FIN both ways. A CLOSE without one reads as FIN, too, as from a client
// that closes its socket: what it has sent still counts. The end of the connection
// is a reset. Where we reset, the channel is closed without EOF.
//
// x/crypto/ssh has no deadlines. Only one in the past has an effect here: a channel
// that waits is closed, and it waits until the client has answered that. One that
// does not loses its connection.
type sshStream struct {
	conn *sshConn

	mu      sync.Mutex
	changed sync.Cond
	offered ssh.NewChannel // awaits its answer
	channel ssh.Channel    // nil before it was granted
	fault   error          // what both directions meet from now on
	ended   bool           // the other end has said EOF, or closed
	expired bool           // a deadline has passed
	abort   bool           // Close is to be a reset
	closed  bool
	gone    bool        // the other end has closed
	guard   *time.Timer // ends the connection of a client that does not close
}

func newSSHStream(c *sshConn, offered ssh.NewChannel) *sshStream {
	s := &sshStream{conn: c, offered: offered}
	s.changed.L = &s.mu
	return s
}

// run takes over a channel that is open. Its place is left when the other end has
// closed it. One that nobody wants any more, since it has come late, is closed.
func (s *sshStream) run(channel ssh.Channel, requests <-chan *ssh.Request) {
	s.mu.Lock()
	s.channel = channel
	if s.over() != nil {
		s.interrupt()
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	if !s.conn.keep(s) {
		s.fail(errConnectionGone)
	}
	s.conn.served.Go(func() {
		for r := range requests {
			s.take(r)
		}
		s.mu.Lock()
		s.gone = true
		if s.guard != nil {
			s.guard.Stop()
		}
		s.mu.Unlock()
		s.conn.forget(s)
	})
}

// take answers a request about the channel.
func (s *sshStream) take(r *ssh.Request) {
	known := true
	switch r.Type {
	case resetRequest:
		s.fail(errChannelReset)
	case eowRequest:
		s.fail(errNobodyReads)
	default:
		known = false
		s.conn.waste()
	}
	_ = r.Reply(known, nil) // fails only where nobody waits any more
}

// keep counts a channel that is open; it reports false where the connection is
// gone.
func (c *sshConn) keep(s *sshStream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams == nil {
		return false
	}
	c.streams[s] = struct{}{}
	return true
}

// forget leaves the place of a channel.
func (c *sshConn) forget(s *sshStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
	c.freeChannel()
	if c.refusing {
		c.rest()
	}
}

// enterChannel takes a place for one more channel, if there is one.
func (c *sshConn) enterChannel() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.channels >= sshChannels {
		return false
	}
	c.channels++
	return true
}

func (c *sshConn) leaveChannel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freeChannel()
}

// freeChannel gives back the place of a channel. Callers hold mu.
func (c *sshConn) freeChannel() {
	c.channels--
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// over returns what keeps anything more from being read or written. Callers hold
// mu.
func (s *sshStream) over() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.expired:
		return os.ErrDeadlineExceeded
	}
	return s.fault
}

// fail makes err what both directions meet from now on.
func (s *sshStream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = err
		s.interrupt()
	}
}

// interrupt wakes who waits. Callers hold mu.
func (s *sshStream) interrupt() {
	s.changed.Broadcast()
	if s.channel != nil && s.guard == nil && !s.gone {
		s.guard = time.AfterFunc(sshAnswer, s.conn.wire.cut)
		channel, abort := s.channel, s.abort || s.expired
		go func() {
			if abort && isSallyport(string(s.conn.ssh.ClientVersion())) {
				_, _ = channel.SendRequest(resetRequest, true, nil) // where it cannot be said, the CLOSE must do
			}
			_ = channel.Close() // fails only where the other end has closed
		}()
	}
}

// Read yields what the other end has sent.
func (s *sshStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for s.channel == nil && s.over() == nil {
		s.changed.Wait()
	}
	channel, err, ended := s.channel, s.over(), s.ended
	s.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case ended:
		return 0, io.EOF
	}
	n, err := channel.Read(p)
	if errors.Is(err, io.EOF) && n == 0 && !s.conn.pulse.alive() {
		s.fail(errConnectionGone)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := s.over(); over != nil {
		return 0, over
	}
	s.ended = errors.Is(err, io.EOF)
	return n, err
}

// Write sends the answer, if there was none, and then data. It blocks until the
// other end lets it all be sent.
func (s *sshStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	channel, err := s.channel, s.over()
	s.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case channel == nil:
		return len(p), s.answer(p)
	}
	n, err := channel.Write(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := s.over(); over != nil {
		return n, over
	}
	if err != nil {
		err = errNobodyReads
	}
	return n, err
}

// CloseWrite says EOF. To an end that has closed nothing is left to be said.
func (s *sshStream) CloseWrite() error {
	s.mu.Lock()
	channel, err := s.channel, s.over()
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case channel == nil:
		return syscall.ENOTCONN
	}
	if err := channel.CloseWrite(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// PendingError returns the fault that the next call would meet.
func (s *sshStream) PendingError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// SetLinger with 0 turns Close into a reset.
func (s *sshStream) SetLinger(seconds int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = seconds == 0
	return nil
}

// Close closes the channel, and does not wait for the other end to do the same. A
// channel that has no answer yet is refused.
func (s *sshStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	s.interrupt()
	if s.offered != nil {
		_ = s.offered.Reject(ssh.ConnectionFailed, string(Failed)) // nobody is left to tell
		s.offered = nil
	}
	return nil
}

// LocalAddr is that of the connection.
func (s *sshStream) LocalAddr() net.Addr { return s.conn.conn.LocalAddr() }

// RemoteAddr is that of the connection.
func (s *sshStream) RemoteAddr() net.Addr { return s.conn.conn.RemoteAddr() }

// SetDeadline ends all waiting if t has passed.
func (s *sshStream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.expired = !t.IsZero() && !time.Now().Before(t)
	if s.expired {
		s.interrupt()
	}
	return nil
}

// SetReadDeadline is SetDeadline: who reads and who writes have the same end.
func (s *sshStream) SetReadDeadline(t time.Time) error { return s.SetDeadline(t) }

// SetWriteDeadline does nothing: what is written is either an answer, for which
// there is always room, or the work of a relay, which sets both.
func (s *sshStream) SetWriteDeadline(time.Time) error { return nil }
