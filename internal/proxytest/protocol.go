package proxytest

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// Protocol is what a client of one inbound protocol says and hears.
type Protocol struct {
	Name string
	// Opening returns all that a client says to be connected to target, in one
	// piece: where a protocol has rounds, the client is one that does not wait
	// for the answers between them.
	Opening func(target netip.AddrPort) []byte
	// Answer reads all that the proxy answers to an opening, and no byte of
	// what follows. It reports whether the target was granted; err is for an
	// answer that breaks the protocol.
	Answer func(from io.Reader) (granted bool, err error)
	// Mute says that none of it goes over the wire, as of a port mapping: whatever
	// a client sends is for the target. What is about bytes of the opening that are
	// wrong is then left out.
	Mute bool
}

// SOCKS4 is SOCKS 4 with a userid, which may be empty.
func SOCKS4(userid string) Protocol {
	return Protocol{
		Name:    strings.TrimSpace("socks4 " + userid),
		Opening: func(target netip.AddrPort) []byte { return Connect4(target, userid) },
		Answer:  answer4,
	}
}

// SOCKS4a is SOCKS 4a, with the target's address as the text of the host name.
func SOCKS4a(userid string) Protocol {
	return Protocol{
		Name: strings.TrimSpace("socks4a " + userid),
		Opening: func(target netip.AddrPort) []byte {
			return Connect4a(target.Addr().String(), target.Port(), userid)
		},
		Answer: answer4,
	}
}

func answer4(from io.Reader) (bool, error) {
	var b [8]byte
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return false, err
	}
	r, _, err := socks.ParseReply4(b[:])
	switch {
	case err != nil || r.Version != 0:
		return false, fmt.Errorf("reply % x, %w", b, err)
	case r.Code < socks.Granted4 || r.Code > socks.OtherUser4:
		return false, fmt.Errorf("reply code %d, which the paper does not have", r.Code)
	}
	return r.Code == socks.Granted4, nil
}

// SOCKS5 is SOCKS 5. Without a name the client offers no login, with one only
// that.
func SOCKS5(name, password string) Protocol {
	method, login, answer := socks.NoAuth, []byte(nil), "\x05\x00"
	if name != "" {
		method, login, answer = socks.Password, Login5(name, password), "\x05\x02\x01\x00"
	}
	return Protocol{
		Name: strings.TrimSpace("socks5 " + name),
		Opening: func(target netip.AddrPort) []byte {
			return slices.Concat(Greeting5(method), login, Ask5(socks.Connect, target))
		},
		Answer: func(from io.Reader) (bool, error) { return answer5(from, answer) },
	}
}

// answer5 reads what comes before the reply, and the reply.
func answer5(from io.Reader, before string) (bool, error) {
	got := make([]byte, len(before))
	if _, err := io.ReadFull(from, got); err != nil {
		return false, err
	}
	if string(got) != before {
		return false, fmt.Errorf("before the reply comes % x, want % x", got, before)
	}
	r, err := readReply5(from)
	switch {
	case err != nil:
		return false, err
	case r.Code > socks.TypeUnsupported5:
		return false, fmt.Errorf("reply code %d, which RFC 1928 does not have", r.Code)
	}
	return r.Code == socks.Succeeded5, nil
}
