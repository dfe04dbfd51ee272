package client

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/sallyport/sallyport/socks"
)

// marker4a is a DSTIP that no target has. It says that a host name follows.
var marker4a = netip.AddrFrom4([4]byte{0, 0, 0, 1})

// socks4 asks proxies for SOCKS 4, or with extended for 4a.
type socks4 struct {
	extended bool
	userID   string
}

func newSOCKS4(extended bool) func(*url.Userinfo) (protocol, error) {
	return func(user *url.Userinfo) (protocol, error) {
		if _, ok := user.Password(); ok {
			return nil, errors.New("client: the proxy URL has a password, and SOCKS 4 has none to send")
		}
		return socks4{extended: extended, userID: user.Username()}, checkField("userid", user.Username())
	}
}

func (socks4) greet(net.Conn) error { return nil } // the request is what comes first

func (p socks4) names() bool { return p.extended }

func (socks4) carries(cmd socks.Command) error {
	if cmd != socks.Connect && cmd != socks.Bind {
		return fmt.Errorf("SOCKS 4 has no UDP: %w", errors.ErrUnsupported)
	}
	return nil
}

// fits reports whether a plain SOCKS 4 request can name ip: IPv4, and not
// 0.0.0.x, which is the mark of 4a, save 0.0.0.0 itself.
func (socks4) fits(ip netip.Addr) bool {
	return ip.Is4() && !socks.Request4{IP: ip}.Is4a()
}

// ask sends the request and returns the first reply. Without an IP that fits,
// the target goes as the text of a 4a host.
func (p socks4) ask(conn net.Conn, cmd socks.Command, target socks.Addr) (reply, error) {
	r := socks.Request4{Command: cmd, Port: target.Port, IP: target.IP, UserID: p.userID}
	if !p.fits(target.IP) {
		r.IP, r.Host = marker4a, target.Host()
	}
	if err := send(conn, "request", r.Append(nil)); err != nil {
		return reply{}, err
	}
	return p.second().read(conn)
}

// second returns the reader of a reply: the first and the second look the same.
func (socks4) second() *reader[reply] { return &reader[reply]{parse: parseReply4} }

func parseReply4(have []byte) (reply, int, error) {
	const length = 8
	r, _, err := socks.ParseReply4(have)
	switch {
	case errors.Is(err, socks.ErrShort):
		return reply{}, length - len(have), nil
	case err != nil:
		return reply{}, 0, wrongVersion(have[0])
	}
	return reply{code: r.Code, granted: r.Code == socks.Granted4, host: socks.Host5{IP: r.IP, Port: r.Port}}, 0, nil
}
