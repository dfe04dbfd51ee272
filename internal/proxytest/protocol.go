package proxytest

import (
	"fmt"
	"io"
	"net/netip"

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
}

// SOCKS4 is SOCKS 4 with a userid.
func SOCKS4(userid string) Protocol {
	return Protocol{
		Name:    "socks4",
		Opening: func(target netip.AddrPort) []byte { return Connect4(target, userid) },
		Answer:  answer4,
	}
}

// SOCKS4a is SOCKS 4a, with the target's address as the text of the host name.
func SOCKS4a(userid string) Protocol {
	return Protocol{
		Name: "socks4a",
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
