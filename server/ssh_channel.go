package server

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
	"github.com/sallyport/sallyport/socks"
)

// forwarding is what a channel that is forwarded carries in its opening: of
// direct-tcpip the target and who asks, of forwarded-tcpip the port that was
// connected to and who did (RFC 4254, section 7).
type sshForward struct {
	Host       string
	Port       uint32
	Origin     string
	OriginPort uint32
}

// parseDirect reads the opening of a direct-tcpip channel.
func parseDirect(payload []byte) (socks.Addr, error) {
	var f sshForward
	if err := ssh.Unmarshal(payload, &f); err != nil {
		return socks.Addr{}, fmt.Errorf("%w: a direct-tcpip that cannot be read", BadRequest)
	}
	return sshAddr(f.Host, f.Port)
}

// sshAddr returns a host and port as a target.
func sshAddr(host string, port uint32) (socks.Addr, error) {
	if port > 65535 {
		return socks.Addr{}, fmt.Errorf("%w: port %d", BadRequest, port)
	}
	target, err := socks.NewAddr(host, uint16(port))
	if err != nil {
		err = fmt.Errorf("%w: %w", BadRequest, err)
	}
	return target, err
}

// take serves a channel that the client opens, in a goroutine of its own.
func (c *sshConn) take(ctx context.Context, channel ssh.NewChannel) {
	if !c.enterChannel() {
		c.reject(channel, ssh.ResourceShortage, "too many channels on this connection")
		return
	}
	switch channel.ChannelType() {
	case "direct-tcpip":
		c.forward(ctx, channel)
	case datagram.Channel:
		c.offerPackets(ctx, channel)
	case "session":
		c.served.Go(func() {
			defer c.leaveChannel()
			c.explain(channel)
		})
	default:
		c.leaveChannel()
		c.reject(channel, ssh.UnknownChannelType, "this proxy forwards TCP connections, and nothing else")
	}
}

// reject refuses a channel that is no session of the server's.
func (c *sshConn) reject(channel ssh.NewChannel, reason ssh.RejectionReason, text string) {
	_ = channel.Reject(reason, text) // fails only where nobody is left to tell
	c.waste()
}

// forward serves a channel to a target. It takes a place at the gate, as a
// connection does.
func (c *sshConn) forward(ctx context.Context, channel ssh.NewChannel) {
	s := newSSHStream(c, channel)
	x := c.branch(s)
	target, err := parseDirect(channel.ExtraData())
	x.ask(&Request{Protocol: SSH, Command: socks.Connect, Identity: c.identity, Target: target, Replier: sshReplier{}})
	if err == nil {
		err = c.enter()
	}
	if err == nil && !c.enterGate() {
		c.leave()
		err = fmt.Errorf("%w: too many connections", Busy)
	}
	if err != nil {
		c.leaveChannel()
		x.say(sshReplier{}.AppendDeny(nil, err, netip.AddrPort{}))
		x.closed(err)
		c.waste()
		return
	}
	c.served.Go(func() {
		defer c.server.state.gate.leave()
		defer c.leave()
		defer s.release()
		defer x.contain()
		x.closed(x.connect(x.opened(ctx)))
	})
}

// release closes a stream, and gives back the place of one that was never open.
func (s *sshStream) release() {
	s.mu.Lock()
	open := s.channel != nil
	s.mu.Unlock()
	_ = s.Close() // it is open
	if !open {
		s.conn.leaveChannel()
		s.conn.waste()
	}
}

// enterGate takes a place among the connections, if there is one.
func (c *sshConn) enterGate() bool {
	free, news := c.server.state.gate.try()
	if news != nil {
		c.server.sayPaused(*news, c.server.state.gate.limit)
	}
	return free == nil
}

// sshReplier answers the opening of a channel: with a byte that is 0 where it was
// granted, else the reason code of RFC 4254, section 5.1, and a text for a person.
type sshReplier struct{}

const sshGranted = 0

func (sshReplier) AppendGrant(b []byte, _ netip.AddrPort) []byte { return append(b, sshGranted) }

func (sshReplier) AppendDeny(b []byte, reason error, _ netip.AddrPort) []byte {
	code := ssh.ConnectionFailed
	switch ReasonOf(reason) {
	case Denied, Schedule, Revoked, NoIdentd, OtherUser, Loop, NoPrimary, WrongPeer, BadLogin:
		code = ssh.Prohibited
	case Busy, TooMany, TooFast:
		code = ssh.ResourceShortage
	}
	return append(append(b, byte(code)), sshSentence(reason)...)
}

// sshSentence says what happened, with its word for a program.
func sshSentence(reason error) string {
	word := ReasonOf(reason)
	if sentence, ok := sentences[word]; ok {
		return fmt.Sprintf("%s (%s)", sentence, word)
	}
	return string(word)
}

// answer sends what the replier has said.
func (s *sshStream) answer(b []byte) error {
	s.mu.Lock()
	offered := s.offered
	s.offered = nil
	s.mu.Unlock()
	if offered == nil {
		return errNobodyReads // it was refused before
	}
	if b[0] != sshGranted {
		return offered.Reject(ssh.RejectionReason(b[0]), string(b[1:]))
	}
	channel, requests, err := offered.Accept()
	if err != nil {
		return err
	}
	s.run(channel, requests)
	return nil
}

// sshNoShell is what a person sees who asks for a shell.
const sshNoShell = "This is Sallyport, a proxy: it forwards connections and has no shell.\r\n" +
	"Try ssh -N with -D, -L or -R, or go on to another machine with -J or -W.\r\n"

// explain accepts a session channel, says to whoever asks for a shell, a program
// or a subsystem that there is none, and closes it. What is written to it is thrown
// away: x/crypto/ssh would keep up to 2 MiB of it.
func (c *sshConn) explain(offered ssh.NewChannel) {
	channel, requests, err := offered.Accept()
	if err != nil {
		return
	}
	for _, written := range []io.Reader{channel, channel.Stderr()} {
		c.served.Go(func() {
			_, _ = io.Copy(io.Discard, written) // until either end has closed it: nobody needs to be told
		})
	}
	for r := range requests {
		asks := slices.Contains([]string{"shell", "exec", "subsystem"}, r.Type)
		_ = r.Reply(asks || r.Type == "pty-req" || r.Type == "env", nil) // fails only where nobody waits any more
		c.waste()
		if !asks {
			continue
		}
		// Whatever of it fails: nobody is left to tell.
		_, _ = channel.Stderr().Write([]byte(sshNoShell))
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{1}))
		_ = channel.Close()
	}
	_ = channel.Close()
}
