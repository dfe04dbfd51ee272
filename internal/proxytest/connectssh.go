package proxytest

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// SSH is a direct-tcpip channel of SSH. Its streams must be of [OverSSH].
func SSH() Protocol {
	return Protocol{
		Name: "ssh",
		Opening: func(target netip.AddrPort) []byte {
			return OpenSSH(ssh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{target.Addr().String(), uint32(target.Port()), "127.0.0.1", 1}))
		},
		Answer: func(from io.Reader) (bool, error) {
			var b [1]byte
			if _, err := io.ReadFull(from, b[:]); err != nil {
				return false, err
			}
			return b[0] == sshOpen, nil
		},
	}
}

// What the client's end of a channel begins with, for who knows nothing of SSH.
const (
	sshOpening = "a channel to "
	sshOpen    = '+'
	sshRefused = '-'
)

// OpenSSH is what is to be written to a stream of [OverSSH] to open a channel with
// this payload.
func OpenSSH(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte(sshOpening), uint16(len(payload))), payload...)
}

// SSHConfig is that of a client that knows what this proxy has added to SSH, and
// takes any host key. Without a password it shows none.
func SSHConfig(user, password string) *ssh.ClientConfig {
	c := &ssh.ClientConfig{User: user, HostKeyCallback: ssh.InsecureIgnoreHostKey(), ClientVersion: "SSH-2.0-Sallyport"}
	if password != "" {
		c.Auth = []ssh.AuthMethod{ssh.Password(password)}
	}
	return c
}

// OverSSH is a channel of SSH over a connection, for a client that knows nothing
// of SSH. What is written first goes out as it is, but for what [OpenSSH] makes,
// which is exchanged for a channel. What is read is a byte, '+' where the channel
// was opened, and then what comes by it.
//
// Close closes the channel, and leaves the connection to whoever has dialled it: a
// proxy wants to be told that the client is still there.
func OverSSH(c Stream, config *ssh.ClientConfig) Stream { return &sshClient{Stream: c, config: config} }

type sshClient struct {
	Stream
	config *ssh.ClientConfig

	mu      sync.Mutex
	opening []byte
	channel ssh.Channel
	answer  []byte // was not read yet
	refused bool
	reset   bool // the proxy says so
	abort   bool
}

// Write sends the opening, and then content.
func (s *sshClient) Write(p []byte) (int, error) {
	if channel := s.open(); channel != nil {
		return channel.Write(p)
	}
	s.opening = append(s.opening, p...)
	n := min(len(s.opening), len(sshOpening))
	if string(s.opening[:n]) != sshOpening[:n] {
		b := s.opening
		s.opening = nil
		_, err := s.Stream.Write(b)
		return len(p), err
	}
	if len(s.opening) < len(sshOpening)+2 {
		return len(p), nil
	}
	rest := s.opening[len(sshOpening)+2:]
	size := int(binary.BigEndian.Uint16(s.opening[len(sshOpening):]))
	if len(rest) < size {
		return len(p), nil
	}
	if err := s.dial(rest[:size]); err != nil {
		return 0, err
	}
	if channel := s.open(); channel != nil && len(rest) > size {
		_, err := channel.Write(rest[size:])
		return len(p), err
	}
	return len(p), nil
}

func (s *sshClient) open() ssh.Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channel
}

// dial signs in and opens the channel.
func (s *sshClient) dial(payload []byte) error {
	conn, channels, requests, err := ssh.NewClientConn(s.Stream, "", s.config)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for one := range channels {
			_ = one.Reject(ssh.Prohibited, "") // fails only at the end
		}
	}()
	channel, asked, err := conn.OpenChannel("direct-tcpip", payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.answer, s.refused = []byte{sshRefused}, true
		return nil
	}
	s.answer, s.channel = []byte{sshOpen}, channel
	go func() {
		for r := range asked {
			if r.Type == "reset@sallyport.github.io" {
				s.mu.Lock()
				s.reset = true
				s.mu.Unlock()
			}
			_ = r.Reply(true, nil) // fails only at the end
		}
	}()
	return nil
}

// Read yields the answer, and then content.
func (s *sshClient) Read(p []byte) (int, error) {
	s.mu.Lock()
	channel, refused := s.channel, s.refused
	if n := copy(p, s.answer); n > 0 {
		s.answer = s.answer[n:]
		s.mu.Unlock()
		return n, nil
	}
	s.mu.Unlock()
	switch {
	case refused:
		return 0, io.EOF
	case channel == nil:
		return s.Stream.Read(p)
	}
	n, err := channel.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.reset {
		err = syscall.ECONNRESET
	}
	return n, err
}

// CloseWrite says EOF; before the channel is open it ends the connection.
func (s *sshClient) CloseWrite() error {
	if channel := s.open(); channel != nil {
		return channel.CloseWrite()
	}
	return s.Stream.CloseWrite()
}

// SetLinger with 0 turns Close into a reset.
func (s *sshClient) SetLinger(seconds int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = seconds == 0
	return s.Stream.SetLinger(seconds)
}

// Close closes the channel, or what there is.
func (s *sshClient) Close() error {
	s.mu.Lock()
	channel, abort := s.channel, s.abort
	s.mu.Unlock()
	if channel == nil {
		return s.Stream.Close()
	}
	if abort {
		_, _ = channel.SendRequest("reset@sallyport.github.io", true, nil) // where it fails, nothing is to be said
	}
	if err := channel.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
