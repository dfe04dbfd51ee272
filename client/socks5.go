package client

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/sallyport/sallyport/socks"
)

// socks5 asks proxies for SOCKS 5 (RFC 1928).
type socks5 struct {
	sendsNames bool
	login      *socks.Login5 // nil: none is offered
}

func newSOCKS5(sendsNames bool) func(*url.Userinfo) (protocol, error) {
	return func(user *url.Userinfo) (protocol, error) {
		p := socks5{sendsNames: sendsNames}
		if user == nil || user.String() == "" {
			return p, nil
		}
		password, _ := user.Password()
		p.login = &socks.Login5{Name: user.Username(), Password: password}
		if p.login.Name == "" {
			return nil, errors.New("client: the proxy URL has a password and no user")
		}
		return p, errors.Join(checkField("user", p.login.Name), checkField("password", password))
	}
}

func (p socks5) greet(conn net.Conn) error { return p.authenticate(conn) }

func (p socks5) names() bool { return p.sendsNames }

func (socks5) carries(socks.Command) error { return nil }

func (socks5) fits(ip netip.Addr) bool { return ip.IsValid() }

// ask goes from the greeting to the reply. Nothing is sent before the answer to
// what came before it: not every server takes what comes too early.
func (p socks5) ask(conn net.Conn, cmd socks.Command, target socks.Addr) (reply, error) {
	if err := p.authenticate(conn); err != nil {
		return reply{}, err
	}
	r := socks.Request5{Command: cmd, Host: socks.Host5(target)}
	if err := send(conn, "request", r.Append(nil)); err != nil {
		return reply{}, err
	}
	return p.second().read(conn)
}

// authenticate negotiates the method and logs in if the proxy wants it.
func (p socks5) authenticate(conn net.Conn) error {
	greeting := socks.Greeting5{Methods: string([]byte{byte(socks.NoAuth)})}
	if p.login != nil {
		greeting.Methods += string([]byte{byte(socks.Password)})
	}
	if err := send(conn, "greeting", greeting.Append(nil)); err != nil {
		return err
	}
	choice, err := (&reader[socks.Choice5]{parse: parsePair(socks.ParseChoice5)}).read(conn)
	switch {
	case err != nil:
		return err
	case choice.Method == socks.NoAcceptable && p.login == nil:
		return fmt.Errorf("%w: it wants one, and the proxy URL has no user", ErrLogin)
	case choice.Method == socks.NoAcceptable:
		return fmt.Errorf("%w: it takes neither none nor a password", ErrLogin)
	case !greeting.Offers(choice.Method):
		return fmt.Errorf("the proxy chose method %#02x, which was not offered", byte(choice.Method))
	case choice.Method == socks.NoAuth:
		return nil
	}
	if err := send(conn, "login", p.login.Append(nil)); err != nil {
		return err
	}
	answer, err := (&reader[socks.LoginReply5]{parse: parsePair(socks.ParseLoginReply5)}).read(conn)
	if err == nil && !answer.Granted {
		err = fmt.Errorf("%w: wrong user or password", ErrLogin)
	}
	return err
}

// parsePair makes a message of two bytes fit a reader.
func parsePair[T any](parse func([]byte) (T, int, error)) func([]byte) (T, int, error) {
	return func(have []byte) (T, int, error) {
		message, _, err := parse(have)
		switch {
		case errors.Is(err, socks.ErrShort):
			return message, 2 - len(have), nil
		case err != nil:
			return message, 0, wrongVersion(have[0])
		}
		return message, 0, nil
	}
}

// second returns the reader of a reply: the first and the second look the same.
func (socks5) second() *reader[reply] { return &reader[reply]{parse: parseReply5} }

func parseReply5(have []byte) (reply, int, error) {
	r, _, err := socks.ParseReply5(have)
	switch {
	case errors.Is(err, socks.ErrShort):
		return reply{}, missing5(have), nil
	case errors.Is(err, socks.ErrVersion):
		return reply{}, 0, wrongVersion(have[0])
	case err != nil && have[1] != byte(socks.Succeeded5):
		// Some servers leave out the address where there is none to tell.
		return reply{code: socks.Code5(have[1])}, 0, nil
	case err != nil:
		return reply{}, 0, fmt.Errorf("reading the reply: %w", err)
	}
	return reply{code: r.Code, granted: r.Code == socks.Succeeded5, host: r.Host}, 0, nil
}

// missing5 returns how many bytes a reply has still at the least. The fifth says
// how long a name is.
func missing5(have []byte) int {
	const head, port = 4, 2
	if len(have) <= head {
		return head + 1 - len(have)
	}
	length := map[byte]int{1: 4, 3: 1 + int(have[head]), 4: 16}[have[head-1]]
	return head + length + port - len(have)
}
