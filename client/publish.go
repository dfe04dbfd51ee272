package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/socks"
)

// Publisher offers services that it can reach as virtual ports of a server, over
// SSH (RFC 4254, section 7): what visitors of the server find there. The exported
// fields must not be changed once Run is called.
type Publisher struct {
	Server   string              // host:port
	User     string              // as whom it signs in
	Auth     []ssh.AuthMethod    // and by what
	HostKey  ssh.HostKeyCallback // says whether the server is the right one; never nil
	Services []Service           // at least one

	// Dial connects to the server; nil: directly. [Dialer.DialContext] goes through
	// proxies.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log is told of what comes and goes; nil: nobody is.
	Log *slog.Logger
}

// Service is what a [Publisher] offers.
type Service struct {
	Name   string // of the virtual port
	Port   uint16 // under which it is offered; visitors do not see it
	Target string // host:port, that visitors are brought to
	UDP    bool   // it is a service of datagrams; the server must be a sallyport
}

// ParseService reads NAME=HOST:PORT, or NAME:PORT=HOST:PORT; udp/HOST:PORT is a service
// of datagrams. Without a port of its own the virtual port has that of the target.
func ParseService(text string) (Service, error) {
	name, target, ok := strings.Cut(text, "=")
	if !ok {
		return Service{}, fmt.Errorf("%q: expected NAME=HOST:PORT, or NAME=udp/HOST:PORT", text)
	}
	target, udp := strings.CutPrefix(target, "udp/")
	at, err := socks.ParseAddr(target)
	if err != nil || at.Port == 0 {
		return Service{}, fmt.Errorf("%q: %q is not HOST:PORT", text, target)
	}
	s := Service{Name: name, Port: at.Port, Target: at.String(), UDP: udp}
	if host, port, ok := strings.Cut(name, ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Service{}, fmt.Errorf("%q: %q is not a port", text, port)
		}
		s.Name, s.Port = host, uint16(n)
	}
	called, err := socks.NewAddr(s.Name, s.Port)
	if err != nil || called.IP.IsValid() {
		return Service{}, fmt.Errorf("%q: %q is not the name of a virtual port", text, s.Name)
	}
	s.Name = called.Name
	return s, nil
}

// Bounds of a connection to a server.
const (
	publishLogin = 30 * time.Second // for reaching the server and signing in
	publishBeat  = 15 * time.Second // from one sign of life to the next
	publishReply = 30 * time.Second // for the answer
	publishDial  = 10 * time.Second // for reaching a service
	mostBackoff  = time.Minute      // between two tries
)

// publishVersion is how it greets: the server then says more than SSH has words for.
const publishVersion = "SSH-2.0-Sallyport"

// resetRequest says before a CLOSE that a channel has not come to its end.
const resetRequest = "reset@sallyport.github.io"

// Run offers the services until ctx ends, and then returns ctx's cause. A connection
// that ends is made again, after a pause that grows up to a minute. What is wrong
// with the very first one is returned: whoever has started it may have mistyped. It
// blocks; everything that it has started has ended when it returns.
func (p *Publisher) Run(ctx context.Context) error {
	var pause time.Duration
	for first := true; ; first = false {
		lasted, err := p.once(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case first && lasted == 0:
			return err
		case lasted > mostBackoff:
			pause = 0
		}
		pause = min(max(2*pause, time.Second), mostBackoff)
		p.log().Warn("the connection to the server has ended; it is made again", "server", p.Server, "error", err, "pause", pause)
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

func (p *Publisher) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

// once is one connection to the server. It returns for how long the services were
// offered by it; 0: they never were.
func (p *Publisher) once(ctx context.Context) (lasted time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	c, err := p.connect(ctx)
	if err != nil {
		cancel()
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	link := &published{Publisher: p, conn: c}
	visitors := c.HandleChannelOpen("forwarded-tcpip")
	var work sync.WaitGroup
	defer func() {
		cancel()
		_ = c.Close() // it has ended, or is to
		work.Wait()
	}()
	work.Go(func() { link.beat(ctx) })
	work.Go(func() {
		for one := range visitors {
			work.Go(func() { link.serve(ctx, one) })
		}
	})
	for _, s := range p.Services {
		if err := link.offer(ctx, s, &work); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	err = c.Wait()
	cancel()
	return max(time.Since(began), 1), err
}

// connect reaches the server and signs in.
func (p *Publisher) connect(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, publishLogin)
	defer cancel()
	dial := p.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	c, err := dial(ctx, "tcp", p.Server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails only on a closed connection
	conn, channels, requests, err := ssh.NewClientConn(c, p.Server, &ssh.ClientConfig{
		User: p.User, Auth: p.Auth, HostKeyCallback: p.HostKey, ClientVersion: publishVersion,
	})
	if !stop() && err == nil {
		err = errors.Join(ctx.Err(), conn.Close())
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("signing in to %s: %w", p.Server, err)
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// published is a connection by which services are offered.
type published struct {
	*Publisher
	conn *ssh.Client
}

// offer asks the server for a virtual port. What goes on after that is work, until ctx
// ends.
func (l *published) offer(ctx context.Context, s Service, work *sync.WaitGroup) error {
	if s.UDP {
		return l.offerPackets(ctx, s, work)
	}
	ok, _, err := l.conn.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
		Host string
		Port uint32
	}{s.Name, uint32(s.Port)}))
	if err == nil && !ok {
		err = fmt.Errorf("the server does not let %s offer the virtual port %q; its log says why", l.User, s.Name)
	}
	if err == nil {
		l.log().Info("offered", "virtual port", s.Name, "target", s.Target, "server", l.Server)
	}
	return err
}

// beat ends the connection when the server gives no sign of life.
func (l *published) beat(ctx context.Context) {
	tick := time.NewTicker(publishBeat)
	defer tick.Stop()
	for l.alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// alive reports whether the server answers; one that does not loses its connection.
func (l *published) alive() bool {
	late := time.AfterFunc(publishReply, func() { _ = l.conn.Close() })
	defer late.Stop()
	_, _, err := l.conn.SendRequest("keepalive@openssh.com", true, nil)
	return err == nil
}

// serve brings a visitor to the service.
func (l *published) serve(ctx context.Context, visitor ssh.NewChannel) {
	target, err := l.target(visitor.ExtraData())
	if err != nil {
		_ = visitor.Reject(ssh.Prohibited, err.Error()) // fails only where the connection is gone
		return
	}
	dial, cancel := context.WithTimeout(ctx, publishDial)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(dial, "tcp", target)
	if err != nil {
		l.log().Warn("a service cannot be reached", "target", target, "error", err)
		_ = visitor.Reject(ssh.ConnectionFailed, "the service does not answer")
		return
	}
	defer c.Close()
	service, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	channel, requests, err := visitor.Accept()
	if err != nil {
		return
	}
	j := &joint{link: l, channel: channel, service: service, told: make(chan struct{})}
	j.run(ctx, requests)
}

// target returns what a visitor is for.
func (l *published) target(payload []byte) (string, error) {
	var f struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(payload, &f); err != nil {
		return "", errors.New("a visitor of nothing that can be read")
	}
	for _, s := range l.Services {
		if s.Name == f.Host && uint32(s.Port) == f.Port && !s.UDP {
			return s.Target, nil
		}
	}
	return "", errors.New("that is not offered here")
}

// joint relays between a visitor's channel and the service. An end is passed on as
// one, and a reset as a reset.
type joint struct {
	link    *published
	channel ssh.Channel
	service *net.TCPConn

	once sync.Once     // for the reset, or that there is none
	told chan struct{} // closed when the server has heard of it
}

func (j *joint) run(ctx context.Context, requests <-chan *ssh.Request) {
	stop := context.AfterFunc(ctx, j.reset)
	defer stop()
	var obeys, copies sync.WaitGroup
	obeys.Go(func() { j.obey(requests) })
	copies.Go(func() {
		if _, err := io.Copy(j.channel, j.service); err != nil {
			j.reset()
			return
		}
		_ = j.channel.CloseWrite() // fails only where the other end has closed, and hears nothing any more
	})
	_, err := io.Copy(j.service, j.channel)
	if err == nil && !j.link.alive() {
		err = io.ErrUnexpectedEOF // it was cut, and nothing was ended
	}
	if err == nil {
		err = j.service.CloseWrite()
	}
	if err != nil {
		j.reset()
	}
	copies.Wait()
	j.once.Do(func() { close(j.told) })
	<-j.told              // else the CLOSE could overtake the reset, and would read as an end
	_ = j.channel.Close() // likewise
	obeys.Wait()
}

// obey takes what the server says about the channel, until that is closed at both
// ends.
func (j *joint) obey(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.Type == resetRequest {
			j.reset()
		}
		_ = r.Reply(r.Type == resetRequest, nil) // fails only where nobody waits any more
	}
}

// reset ends both sides as what has not come to its end. It does not wait.
func (j *joint) reset() {
	j.once.Do(func() {
		_ = j.service.SetLinger(0) // of no effect on a connection that is gone already
		j.service.Close()
		go func() {
			defer close(j.told)
			_, _ = j.channel.SendRequest(resetRequest, true, nil) // where it cannot be said, the CLOSE must do
			_ = j.channel.Close()
		}()
	})
}
