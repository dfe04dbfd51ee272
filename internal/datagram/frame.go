// Package datagram carries the datagrams of many visitors over one stream: how they
// are framed on it, who waits while it is slow (nobody: what has no room is lost, as
// on any way of datagrams), and how they are read again. Both ends of a virtual port
// for datagrams use it, the server and who publishes.
package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Channel is the type of the SSH channel by which a client offers a virtual port for
// datagrams. Its opening carries what that of a tcpip-forward request does (RFC 4254,
// section 7.1); the offer is granted with the channel, and ends with it. What goes
// over it, both ways, is frames.
const Channel = "datagrams@sallyport.github.io"

// Bounds of a frame.
const (
	MaxPayload = 65527 // bytes: what UDP has room for over IPv6
	header     = 1 + 4 + 2
)

// The kinds of frames.
const (
	kindDatagram = 0
	kindEnd      = 1
)

// Frame is a datagram to or from a visitor, or the news that nothing more comes from
// or for that visitor.
type Frame struct {
	Visitor uint32 // as the server numbers them; a number that is new is a new visitor
	End     bool   // there is no payload then
	Payload []byte
}

// ErrFrame is what is wrong with a stream that carries something else.
var ErrFrame = errors.New("not a frame of datagrams")

// Append writes the frame behind b: a byte for its kind, the visitor, the length of the
// payload, both in network byte order, and the payload, which must not be longer than
// MaxPayload.
func (f Frame) Append(b []byte) []byte {
	kind := byte(kindDatagram)
	if f.End {
		kind = kindEnd
	}
	b = binary.BigEndian.AppendUint32(append(b, kind), f.Visitor)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(f.Payload))), f.Payload...)
}

// Parse reads a frame from the start of b. It returns how many bytes the frame has;
// where that is more than there are, the frame is not whole yet, and want is enough to
// go on. The payload is part of b.
func Parse(b []byte) (f Frame, want int, err error) {
	if len(b) > 0 && b[0] > kindEnd {
		return Frame{}, 0, fmt.Errorf("%w: kind %d", ErrFrame, b[0])
	}
	if len(b) < header {
		return Frame{}, header, nil
	}
	f.Visitor, f.End = binary.BigEndian.Uint32(b[1:]), b[0] == kindEnd
	size := int(binary.BigEndian.Uint16(b[5:]))
	switch {
	case size > MaxPayload:
		return Frame{}, 0, fmt.Errorf("%w: %d bytes", ErrFrame, size)
	case f.End && size > 0:
		return Frame{}, 0, fmt.Errorf("%w: an end with %d bytes", ErrFrame, size)
	case len(b) < header+size:
		return Frame{}, header + size, nil
	}
	f.Payload = b[header : header+size : header+size]
	return f, header + size, nil
}
