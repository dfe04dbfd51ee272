package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/socks"
)

// A protocol is how the proxies of one kind are asked. It knows the login that
// stood in the URL, and nothing else.
type protocol interface {
	// carries returns an error if no request can name this command.
	carries(socks.Command) error
	// names reports whether host names go to the proxy unresolved.
	names() bool
	// fits reports whether a request can name this address.
	fits(netip.Addr) bool
	// greet does what comes before a request, on a connection of its own.
	greet(conn net.Conn) error
	// ask makes the request and returns the reply to it, whatever its code.
	ask(conn net.Conn, cmd socks.Command, target socks.Addr) (reply, error)
	// second returns the reader of BIND's second reply.
	second() *reader[reply]
}

// reply is a proxy's answer to a request.
type reply struct {
	code    Code
	granted bool
	host    socks.Host5 // the address in it, if it has one
	reason  string      // HTTP only
	rule    string      // HTTP only
}

// addr returns the address in the reply, which may be a name.
func (r reply) addr(network string) net.Addr {
	if !r.host.IP.IsValid() {
		return Addr{network, net.JoinHostPort(r.host.Name, strconv.Itoa(int(r.host.Port)))}
	}
	a := netip.AddrPortFrom(r.host.IP.Unmap(), r.host.Port)
	if network == "udp" {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

// bound returns where the proxy waits. Where the reply has no IP address, the
// proxy's own stands in: the one that it was reached at, or the one in its URL.
func (r reply) bound(network string, proxyAddr net.Addr, proxyHost string) net.Addr {
	if r.host.IP.IsValid() && !r.host.IP.IsUnspecified() || r.host.Name != "" {
		return r.addr(network)
	}
	if a, err := netip.ParseAddrPort(proxyAddr.String()); err == nil {
		r.host.IP = a.Addr()
	} else if ip, err := netip.ParseAddr(proxyHost); err == nil {
		r.host.IP = ip
	} else {
		r.host.IP, r.host.Name = netip.Addr{}, proxyHost
	}
	return r.addr(network)
}

// exchange makes a request over conn, bounded by ctx. It leaves no deadline on
// conn, unless it fails: then conn is of no more use.
func exchange(ctx context.Context, conn net.Conn, ask func() (reply, error)) (reply, error) {
	stop := context.AfterFunc(ctx, func() { interrupt(conn) })
	r, err := ask()
	if !stop() { // whatever came of it, conn has been interrupted or is about to be
		return reply{}, fmt.Errorf("waiting for the reply: %w", ended(ctx))
	}
	return r, err
}

// interrupt ends what is blocked on conn, and what will be.
func interrupt(conn net.Conn) {
	if conn.SetDeadline(time.Unix(1, 0)) != nil {
		conn.Close() // channels of an SSH connection, for one, have no deadlines
	}
}

// send writes a message, in one write: some servers take one only if it comes
// in one segment.
func send(conn io.Writer, what string, message []byte) error {
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("sending the %s: %w", what, err)
	}
	return nil
}

// reader reads one message of the proxy and not a byte more: what follows is
// the target's. It may be asked again after a timeout, and goes on where it was.
type reader[T any] struct {
	// parse returns the message, or how many more bytes it has at the least.
	parse func(have []byte) (message T, missing int, err error)
	have  []byte
}

func (r *reader[T]) read(conn io.Reader) (T, error) {
	for {
		message, missing, err := r.parse(r.have)
		if err != nil || missing == 0 {
			return message, err
		}
		if err := r.fill(conn, missing); err != nil {
			return message, err
		}
	}
}

// fill reads at least one byte and at most missing ones.
func (r *reader[T]) fill(conn io.Reader, missing int) error {
	at := len(r.have)
	r.have = append(r.have, make([]byte, missing)...)
	n, err := conn.Read(r.have[at:])
	r.have = r.have[:at+n]
	switch {
	case n > 0:
		return nil // an error that came with bytes comes again without
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the proxy closed the connection after %d bytes of the reply, at least %d too early: %w", at, missing, io.ErrUnexpectedEOF)
	case err != nil:
		return fmt.Errorf("reading the reply: %w", err)
	}
	return nil
}

// wrongVersion says what is probably at the other end.
func wrongVersion(first byte) error {
	looks := ""
	switch first {
	case 0, socks.Version4:
		looks = "; this looks like a proxy for SOCKS 4"
	case socks.Version5:
		looks = "; this looks like a proxy for SOCKS 5"
	case 'H':
		looks = "; this looks like an HTTP server"
	case 0x15:
		looks = "; this looks like a TLS server"
	}
	return fmt.Errorf("%w: the reply begins with %#02x%s", socks.ErrVersion, first, looks)
}
