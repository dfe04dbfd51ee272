// Package socks is SOCKS on the wire: values in, bytes out.
//
// It opens no socket, reads no clock and keeps no state, so a blocking reader,
// an event loop, a fuzzer and a test can all drive the same code. Every parser
// takes what has arrived so far and answers in one of three ways: a value with
// the number of bytes it took, [ErrShort] (more is needed), or an error that
// more bytes cannot mend. What follows a message is left untouched.
//
// All parsers (but ParseLoginReply5, which says why) are canonical: what they
// accept, the value's Append writes back byte for byte. They copy what they
// keep, so the input may be reused.
package socks

import "errors"

var (
	// ErrShort says that the message is not complete yet: read more and parse
	// again from its first byte.
	ErrShort = errors.New("socks: more bytes needed")
	// ErrVersion says that the first byte is not that of the protocol.
	ErrVersion = errors.New("socks: wrong version byte")
)

// Command is what a client asks for. The numbers are the same in SOCKS 4 and 5.
type Command byte

// The commands of the paper (sections 1 and 2), and of RFC 1928 (section 4).
const (
	Connect   Command = 1
	Bind      Command = 2
	Associate Command = 3 // SOCKS 5 only
)

// String returns the word that settings and logs use, or "unknown".
func (c Command) String() string {
	switch c {
	case Connect:
		return "connect"
	case Bind:
		return "bind"
	case Associate:
		return "udp"
	}
	return "unknown"
}
