package socks

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Version5 is the first byte of a SOCKS 5 message, but for those of the login.
const Version5 = 5

// loginVersion is the first byte of the login's messages (RFC 1929).
const loginVersion = 1

// Method is a way to authenticate (RFC 1928, section 3).
type Method byte

// The methods.
const (
	NoAuth       Method = 0x00
	Password     Method = 0x02 // user name and password, RFC 1929
	NoAcceptable Method = 0xff // the answer to a client that offers nothing of use
)

// Errors of a SOCKS 5 message that no further byte can mend.
var (
	ErrNoMethods   = errors.New("socks: no method is offered")
	ErrLogin       = errors.New("socks: a login needs a name and a password of 1 to 255 bytes, without NUL")
	ErrReserved    = errors.New("socks: the reserved byte is not 0")
	ErrAddressType = errors.New("socks: unknown address type")
)

// Greeting5 is a client's first message (RFC 1928, section 3).
type Greeting5 struct {
	Methods string // one byte each, in the client's order; at least one
}

// Offers reports whether the client offers m.
func (g Greeting5) Offers(m Method) bool { return strings.IndexByte(g.Methods, byte(m)) >= 0 }

// ParseGreeting5 reads a greeting from the start of b and returns the number of
// bytes it took, at most 257. It fails with ErrShort, ErrVersion or ErrNoMethods.
func ParseGreeting5(b []byte) (Greeting5, int, error) {
	if len(b) > 0 && b[0] != Version5 {
		return Greeting5{}, 0, ErrVersion
	}
	methods, n, err := cutCounted(b, 1)
	if err == nil && methods == "" {
		err = ErrNoMethods
	}
	if err != nil {
		return Greeting5{}, 0, err
	}
	return Greeting5{Methods: methods}, n, nil
}

// Append writes the greeting behind b.
func (g Greeting5) Append(b []byte) []byte { return appendCounted(append(b, Version5), g.Methods) }

// Choice5 is the server's answer to a greeting.
type Choice5 struct{ Method Method }

// ParseChoice5 reads a choice from the start of b and returns the number of
// bytes it took, always 2. It fails with ErrShort or ErrVersion.
func ParseChoice5(b []byte) (Choice5, int, error) {
	switch {
	case len(b) > 0 && b[0] != Version5:
		return Choice5{}, 0, ErrVersion
	case len(b) < 2:
		return Choice5{}, 0, ErrShort
	}
	return Choice5{Method(b[1])}, 2, nil
}

// Append writes the choice behind b.
func (c Choice5) Append(b []byte) []byte { return append(b, Version5, byte(c.Method)) }

// Login5 is a user name and a password (RFC 1929, section 2).
type Login5 struct {
	Name     string // 1 to 255 bytes, no NUL
	Password string // 1 to 255 bytes, no NUL
}

// ParseLogin5 reads a login from the start of b and returns the number of bytes
// it took, at most 513. It fails with ErrShort, ErrVersion or ErrLogin.
func ParseLogin5(b []byte) (Login5, int, error) {
	if len(b) > 0 && b[0] != loginVersion {
		return Login5{}, 0, ErrVersion
	}
	name, n, err := cutCounted(b, 1)
	if err != nil {
		return Login5{}, 0, err
	}
	password, n, err := cutCounted(b, n)
	if err != nil {
		return Login5{}, 0, err
	}
	if name == "" || password == "" || strings.IndexByte(name, 0) >= 0 || strings.IndexByte(password, 0) >= 0 {
		return Login5{}, 0, ErrLogin
	}
	return Login5{Name: name, Password: password}, n, nil
}

// Append writes the login behind b.
func (l Login5) Append(b []byte) []byte {
	return appendCounted(appendCounted(append(b, loginVersion), l.Name), l.Password)
}

// LoginReply5 is the server's answer to a login.
type LoginReply5 struct{ Granted bool }

// ParseLoginReply5 reads the answer to a login from the start of b and returns
// the number of bytes it took, always 2. Every status but 0 is a refusal. It
// fails with ErrShort or ErrVersion; version 5, which some servers send, is
// taken for 1. So, unlike all others, this parser is not canonical: Append
// writes version 1, and 0 or 1.
func ParseLoginReply5(b []byte) (LoginReply5, int, error) {
	switch {
	case len(b) > 0 && b[0] != loginVersion && b[0] != Version5:
		return LoginReply5{}, 0, ErrVersion
	case len(b) < 2:
		return LoginReply5{}, 0, ErrShort
	}
	return LoginReply5{Granted: b[1] == 0}, 2, nil
}

// Append writes the answer behind b.
func (r LoginReply5) Append(b []byte) []byte {
	if r.Granted {
		return append(b, loginVersion, 0)
	}
	return append(b, loginVersion, 1)
}

// cutCounted returns the bytes that a count at b[at] counts, and where they end.
func cutCounted(b []byte, at int) (string, int, error) {
	if len(b) <= at {
		return "", 0, ErrShort
	}
	end := at + 1 + int(b[at])
	if len(b) < end {
		return "", 0, ErrShort
	}
	return string(b[at+1 : end]), end, nil
}

func appendCounted(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// Host5 is an address as SOCKS 5 writes it (RFC 1928, section 5): an IPv4 or
// IPv6 address, or a name exactly as sent, and a port.
type Host5 struct {
	IP   netip.Addr // valid, or else Name counts
	Name string     // 0 to 255 bytes, any
	Port uint16
}

// The address types.
const (
	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4
)

// NewHost5 writes an address. An invalid one becomes 0.0.0.0.
func NewHost5(a netip.AddrPort) Host5 {
	ip := a.Addr().Unmap().WithZone("")
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return Host5{IP: ip, Port: a.Port()}
}

// Addr returns the target that the host names, in canonical form. It fails with
// ErrHost.
func (h Host5) Addr() (Addr, error) {
	if h.IP.IsValid() {
		return FromIP(netip.AddrPortFrom(h.IP, h.Port)), nil
	}
	return NewAddr(h.Name, h.Port)
}

// parseHost5 reads an address that begins at b[at] and returns where it ends.
func parseHost5(b []byte, at int) (h Host5, end int, err error) {
	if len(b) <= at {
		return Host5{}, 0, ErrShort
	}
	switch b[at] {
	case typeIPv4:
		end = at + 1 + 4
	case typeIPv6:
		end = at + 1 + 16
	case typeName:
		h.Name, end, err = cutCounted(b, at+1)
	default:
		err = fmt.Errorf("%w %d", ErrAddressType, b[at])
	}
	if err != nil {
		return Host5{}, 0, err
	}
	if len(b) < end+2 {
		return Host5{}, 0, ErrShort
	}
	if b[at] != typeName {
		h.IP, _ = netip.AddrFromSlice(b[at+1 : end])
	}
	h.Port = uint16(b[end])<<8 | uint16(b[end+1])
	return h, end + 2, nil
}

func (h Host5) append(b []byte) []byte {
	switch {
	case h.IP.Is4():
		ip := h.IP.As4()
		b = append(append(b, typeIPv4), ip[:]...)
	case h.IP.IsValid():
		ip := h.IP.As16()
		b = append(append(b, typeIPv6), ip[:]...)
	default:
		b = appendCounted(append(b, typeName), h.Name)
	}
	return append(b, byte(h.Port>>8), byte(h.Port))
}

// Request5 is a request (RFC 1928, section 4).
type Request5 struct {
	Command Command
	Host    Host5
}

// ParseRequest5 reads a request from the start of b and returns the number of
// bytes it took, at most 262. It fails with ErrShort, ErrVersion, ErrReserved
// or ErrAddressType. A command it does not know is no error here, nor is a name
// that is none: that is for Host5.Addr to say.
func ParseRequest5(b []byte) (Request5, int, error) {
	command, host, n, err := parse5(b)
	return Request5{Command(command), host}, n, err
}

// Append writes the request behind b.
func (r Request5) Append(b []byte) []byte {
	return r.Host.append(append(b, Version5, byte(r.Command), 0))
}

// parse5 reads what requests and replies have in common.
func parse5(b []byte) (code byte, h Host5, n int, err error) {
	switch {
	case len(b) > 0 && b[0] != Version5:
		return 0, Host5{}, 0, ErrVersion
	case len(b) > 2 && b[2] != 0:
		return 0, Host5{}, 0, ErrReserved
	}
	h, n, err = parseHost5(b, 3)
	if err != nil {
		return 0, Host5{}, 0, err
	}
	return b[1], h, n, nil
}

// Code5 is the result code of a reply (RFC 1928, section 6).
type Code5 byte

// The result codes.
const (
	Succeeded5          Code5 = 0
	GeneralFailure5     Code5 = 1
	NotAllowed5         Code5 = 2
	NetworkUnreachable5 Code5 = 3
	HostUnreachable5    Code5 = 4
	Refused5            Code5 = 5
	TTLExpired5         Code5 = 6
	CommandUnsupported5 Code5 = 7
	TypeUnsupported5    Code5 = 8
)

// String says what the code means, in a sentence's part.
func (c Code5) String() string {
	words := [...]string{
		"succeeded", "general failure", "not allowed by the proxy's rules", "network unreachable",
		"host unreachable", "connection refused", "time ran out", "command not supported", "address type not supported",
	}
	if int(c) < len(words) {
		return words[c]
	}
	return fmt.Sprintf("unknown code %d", byte(c))
}

// Reply5 is a reply. BIND has two of them.
type Reply5 struct {
	Code Code5
	Host Host5
}

// ParseReply5 reads a reply from the start of b and returns the number of bytes
// it took, at most 262. It fails as ParseRequest5 does.
func ParseReply5(b []byte) (Reply5, int, error) {
	code, host, n, err := parse5(b)
	return Reply5{Code5(code), host}, n, err
}

// Append writes the reply behind b.
func (r Reply5) Append(b []byte) []byte { return r.Host.append(append(b, Version5, byte(r.Code), 0)) }

// Datagram5 is the header in front of a UDP datagram (RFC 1928, section 7).
type Datagram5 struct {
	Fragment byte // 0: whole; else the number, with the high bit on the last one
	Host     Host5
}

// ParseDatagram5 reads a header from the start of a datagram and returns the
// number of bytes it took: the rest is the payload. A datagram comes whole, so
// ErrShort means that it is cut off. It fails with ErrShort, ErrReserved or
// ErrAddressType.
func ParseDatagram5(b []byte) (Datagram5, int, error) {
	switch {
	case len(b) < 3:
		return Datagram5{}, 0, ErrShort
	case b[0] != 0 || b[1] != 0:
		return Datagram5{}, 0, ErrReserved
	}
	host, n, err := parseHost5(b, 3)
	if err != nil {
		return Datagram5{}, 0, err
	}
	return Datagram5{b[2], host}, n, nil
}

// Append writes the header behind b.
func (d Datagram5) Append(b []byte) []byte { return d.Host.append(append(b, 0, 0, d.Fragment)) }
