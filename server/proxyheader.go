package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

// The PROXY protocol, versions 1 and 2, as HAProxy's specification has it: what
// a load balancer says first on a connection, so that whoever it leads to knows
// the client.

const (
	// headerWords begins version 1, a line of text.
	headerWords = "PROXY "
	// headerSignature begins version 2, which is binary.
	headerSignature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxHeaderLine is the longest line of version 1, CR LF included.
	maxHeaderLine = 107
	// headerHead is the head of version 2: signature, version and command,
	// family, length.
	headerHead = len(headerSignature) + 4
	// mostHeader is the longest header of version 2 that is read, with all that
	// stands behind the addresses. It fits into a segment of any size of packet.
	mostHeader = 536
)

var (
	errHeader        = errors.New("the PROXY header is not of the protocol's form")
	errHeaderSize    = errors.New("the PROXY header is too long")
	errHeaderMissing = errors.New("a load balancer that is listed here must begin with a PROXY header")
	errHeaderUnasked = errors.New("a PROXY header from an address that is not listed for it")
)

// proxyHeader is what a header says. Both are invalid where it names no client:
// then the ends of the connection itself are meant.
type proxyHeader struct{ client, local netip.AddrPort }

// parseProxyHeader reads a header at the beginning of b, and answers how many
// bytes it has. The error is socks.ErrShort where more bytes are needed. It
// decides at the first byte by which it can, and never on what follows.
func parseProxyHeader(b []byte) (h proxyHeader, took int, err error) {
	switch {
	case begins(b, headerSignature):
		return parseHeader2(b)
	case begins(b, headerWords):
		return parseHeader1(b)
	}
	return proxyHeader{}, 0, errHeaderMissing
}

// begins reports whether b begins with the text, as far as it has come.
func begins(b []byte, text string) bool {
	n := min(len(b), len(text))
	return string(b[:n]) == text[:n]
}

// parseHeader1 reads a line such as
//
//	PROXY TCP4 192.0.2.1 198.51.100.7 40122 1080
//
// Behind PROXY UNKNOWN anything may stand, and says nothing.
func parseHeader1(b []byte) (proxyHeader, int, error) {
	end := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r > '~' })
	switch {
	case end < 0 && len(b) > maxHeaderLine-2, end > maxHeaderLine-2:
		return proxyHeader{}, 0, errHeaderSize
	case end < 0, len(b) == end+1 && b[end] == '\r':
		return proxyHeader{}, 0, socks.ErrShort
	case b[end] != '\r' || b[end+1] != '\n':
		return proxyHeader{}, 0, errHeader
	}
	h, err := parseHeaderFields(strings.Split(string(b[len(headerWords):end]), " "))
	if err != nil {
		return proxyHeader{}, 0, err
	}
	return h, end + 2, nil
}

func parseHeaderFields(fields []string) (proxyHeader, error) {
	if fields[0] == "UNKNOWN" {
		return proxyHeader{}, nil
	}
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return proxyHeader{}, errHeader
	}
	client, ok := parseHeaderAddr(fields[1], fields[3], fields[0] == "TCP4")
	local, okLocal := parseHeaderAddr(fields[2], fields[4], fields[0] == "TCP4")
	if !ok || !okLocal {
		return proxyHeader{}, errHeader
	}
	return proxyHeader{client, local}, nil
}

func parseHeaderAddr(host, port string, is4 bool) (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Is4() != is4 || ip.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), true
}

// The commands and families of version 2.
const (
	headerLocal = 0x20 // the load balancer's own connection: it looks whether we live
	headerProxy = 0x21

	headerUnspec = 0x00 // of a client that has no address
	headerTCP4   = 0x11
	headerTCP6   = 0x21
	headerUnix   = 0x31 // of a client on the load balancer's own machine
)

// parseHeader2 reads a binary header. What stands behind the addresses (the
// protocol's TLVs) is skipped.
func parseHeader2(b []byte) (proxyHeader, int, error) {
	if len(b) > len(headerSignature) {
		if command := b[len(headerSignature)]; command != headerLocal && command != headerProxy {
			return proxyHeader{}, 0, errHeader
		}
	}
	if len(b) < headerHead {
		return proxyHeader{}, 0, socks.ErrShort
	}
	size := int(binary.BigEndian.Uint16(b[headerHead-2:]))
	if headerHead+size > mostHeader {
		return proxyHeader{}, 0, errHeaderSize
	}
	command, family := b[headerHead-4], b[headerHead-3]
	length, names, known := headerFamily(family)
	if command == headerProxy && (!known || size < 2*length) {
		return proxyHeader{}, 0, errHeader
	}
	took := headerHead + size
	switch {
	case len(b) < took:
		return proxyHeader{}, 0, socks.ErrShort
	case command == headerLocal || !names:
		return proxyHeader{}, took, nil
	}
	return headerAddrs(b[headerHead:], length-2), took, nil
}

// headerFamily answers how many bytes an address and its port have, whether they
// name a client that rules can know, and whether the family is one of ours: TCP
// is all that comes here.
func headerFamily(family byte) (length int, names, known bool) {
	switch family {
	case headerTCP4:
		return 4 + 2, true, true
	case headerTCP6:
		return 16 + 2, true, true
	case headerUnix:
		return 108, false, true
	case headerUnspec:
		return 0, false, true
	}
	return 0, false, false
}

// headerAddrs reads two addresses of length bytes each, and then two ports.
func headerAddrs(b []byte, length int) proxyHeader {
	at := func(i int) netip.AddrPort {
		ip, _ := netip.AddrFromSlice(b[i*length : (i+1)*length]) // the length is one of an address
		return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[2*(length+i):]))
	}
	return proxyHeader{client: at(0), local: at(1)}
}

// AppendProxyHeader appends a header of the PROXY protocol, version 1 or 2, by
// which a server that lists this machine learns that a connection is for client,
// who has connected to local. Without a valid client it says that the connection
// is this machine's own.
func AppendProxyHeader(b []byte, version int, client, local netip.AddrPort) []byte {
	known := client.IsValid() && local.IsValid()
	from, to := client.Addr().Unmap().WithZone(""), local.Addr().Unmap().WithZone("")
	if known && from.Is4() != to.Is4() { // both must be of one family
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	if version == 1 {
		return appendHeader1(b, known, netip.AddrPortFrom(from, client.Port()), netip.AddrPortFrom(to, local.Port()))
	}
	command, family, length := byte(headerLocal), byte(headerUnspec), 0
	switch {
	case known && from.Is4():
		command, family, length = headerProxy, headerTCP4, 2*(4+2)
	case known:
		command, family, length = headerProxy, headerTCP6, 2*(16+2)
	}
	b = append(append(b, headerSignature...), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	if known {
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, client.Port())
		b = binary.BigEndian.AppendUint16(b, local.Port())
	}
	return b
}

func appendHeader1(b []byte, known bool, from, to netip.AddrPort) []byte {
	family := "TCP6"
	switch {
	case !known:
		return append(b, headerWords+"UNKNOWN\r\n"...)
	case from.Addr().Is4():
		family = "TCP4"
	}
	return fmt.Appendf(b, headerWords+"%s %s %s %d %d\r\n", family, from.Addr(), to.Addr(), from.Port(), to.Port())
}

// takesHeader reports whether the client's address is one that must begin with
// a PROXY header.
func (l *Listener) takesHeader(client netip.Addr) bool {
	client = client.WithZone("")
	for _, p := range l.ProxyFrom {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// header does what comes before the first byte of a protocol, on a listener
// that knows load balancers: those must say a header, and nobody else may. It
// reports whether that is done, and else needs more bytes.
func (d *driver) header() (done bool, err error) {
	if !d.listener.takesHeader(d.session.Client.Addr()) {
		if !begins(d.buf, headerWords) && !begins(d.buf, headerSignature) {
			return true, nil
		}
		if len(d.buf) < len(headerWords) {
			return false, nil
		}
		return false, fmt.Errorf("%w: %w", Garbage, errHeaderUnasked)
	}
	h, took, err := parseProxyHeader(d.buf)
	switch {
	case errors.Is(err, socks.ErrShort):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", Garbage, err)
	}
	d.buf = d.buf[:copy(d.buf, d.buf[took:])]
	d.relayedFor(h)
	return true, nil
}

// relayedFor makes the client that the header names the exchange's own.
func (x *exchange) relayedFor(h proxyHeader) {
	through := x.session.Client
	if !h.client.IsValid() {
		h = proxyHeader{client: through, local: x.local}
	}
	x.relayed = &h
	x.session.Client, x.session.Through = h.client, through
}
