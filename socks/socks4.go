package socks

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
)

// Version4 is the first byte of a SOCKS 4 or 4a request.
const Version4 = 4

// Bounds of a SOCKS 4 request. The paper sets none.
const (
	// DefaultUserID is the longest userid accepted unless the caller says otherwise.
	DefaultUserID = 255
	// MaxUserID is the longest userid that may be configured.
	MaxUserID = 1024
	// MaxHost is the longest host name of a 4a request.
	MaxHost = 255

	head4 = 8 // VN, CD, DSTPORT, DSTIP; also the length of a reply
)

// Errors of a request that no further byte can mend. The server answers both
// with 91.
var (
	ErrUserIDLength = errors.New("socks: userid too long")
	ErrHostLength   = errors.New("socks: 4a host name empty or longer than 255 bytes")
)

// Request4 is a SOCKS 4 request as the paper lays it out, or a 4a request when
// IP is 0.0.0.x with x other than 0: then Host follows the userid.
type Request4 struct {
	Command Command
	Port    uint16     // DSTPORT
	IP      netip.Addr // DSTIP, always IPv4; kept as sent, for 4a too
	UserID  string     // any bytes but NUL
	Host    string     // 4a only: the name exactly as sent
}

// Is4a reports whether the request names its target by host name.
func (r Request4) Is4a() bool { return r.IP.Is4() && is4a(r.IP.As4()) }

func is4a(ip [4]byte) bool { return ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] != 0 }

// ParseRequest4 reads a request from the start of b and returns the number of
// bytes it took. The userid may have at most maxUserID bytes. It fails with
// ErrShort, ErrVersion, ErrUserIDLength or ErrHostLength, the latter two as
// soon as the bound is passed, so that no caller has to hold more than
// 8+maxUserID+1+MaxHost+1 bytes. A command it does not know is no error here.
func ParseRequest4(b []byte, maxUserID int) (Request4, int, error) {
	if len(b) > 0 && b[0] != Version4 {
		return Request4{}, 0, ErrVersion
	}
	if len(b) < head4 {
		return Request4{}, 0, ErrShort
	}
	ip := [4]byte(b[4:8])
	r := Request4{Command: Command(b[1]), Port: uint16(b[2])<<8 | uint16(b[3]), IP: netip.AddrFrom4(ip)}

	user, n, err := cutNUL(b[head4:], maxUserID, ErrUserIDLength)
	if err != nil {
		return Request4{}, 0, err
	}
	n += head4
	var host []byte
	if is4a(ip) {
		var taken int
		host, taken, err = cutNUL(b[n:], MaxHost, ErrHostLength)
		if err == nil && len(host) == 0 {
			err = ErrHostLength
		}
		if err != nil {
			return Request4{}, 0, err
		}
		n += taken
	}
	r.UserID, r.Host = string(user), string(host)
	return r, n, nil
}

// cutNUL returns what stands before the first NUL, at most limit bytes, and how
// many bytes that and the NUL are.
func cutNUL(b []byte, limit int, tooLong error) ([]byte, int, error) {
	end := bytes.IndexByte(b[:min(len(b), limit+1)], 0)
	switch {
	case end >= 0:
		return b[:end], end + 1, nil
	case len(b) > limit:
		return nil, 0, tooLong
	}
	return nil, 0, ErrShort
}

// Append writes the request behind b. The fields must be such as ParseRequest4
// returns: an IPv4 address, no NUL in the strings, Host set just when Is4a.
func (r Request4) Append(b []byte) []byte {
	b = append(b, Version4, byte(r.Command), byte(r.Port>>8), byte(r.Port))
	ip := r.IP.As4()
	b = append(b, ip[:]...)
	b = append(b, r.UserID...)
	b = append(b, 0)
	if is4a(ip) {
		b = append(b, r.Host...)
		b = append(b, 0)
	}
	return b
}

// Code4 is the result code of a reply.
type Code4 byte

// The result codes of the paper.
const (
	Granted4   Code4 = 90 // request granted
	Rejected4  Code4 = 91 // request rejected or failed
	NoIdentd4  Code4 = 92 // rejected because the server cannot connect to identd on the client
	OtherUser4 Code4 = 93 // rejected because client and identd report different userids
)

// String says what the code means, in a sentence's part.
func (c Code4) String() string {
	switch c {
	case Granted4:
		return "granted"
	case Rejected4:
		return "rejected or failed"
	case NoIdentd4:
		return "rejected: the proxy cannot connect to identd on the client"
	case OtherUser4:
		return "rejected: the client and identd report different userids"
	}
	return fmt.Sprintf("unknown code %d", byte(c))
}

// Reply4 is a reply. BIND has two of them.
type Reply4 struct {
	Version byte // 0 by the paper; some servers send 4, and a client tolerates that
	Code    Code4
	Port    uint16     // DSTPORT
	IP      netip.Addr // DSTIP, always IPv4
}

// NewReply4 makes a reply that carries addr. What a SOCKS 4 reply cannot carry
// (an IPv6 address, none at all) becomes 0.0.0.0; the port is kept.
func NewReply4(code Code4, addr netip.AddrPort) Reply4 {
	ip := addr.Addr().Unmap()
	if !ip.Is4() {
		ip = netip.IPv4Unspecified()
	}
	return Reply4{Code: code, Port: addr.Port(), IP: ip}
}

// ParseReply4 reads a reply from the start of b and returns the number of bytes
// it took, always 8. It fails with ErrShort, or ErrVersion where the first byte
// is neither 0 nor 4.
func ParseReply4(b []byte) (Reply4, int, error) {
	if len(b) > 0 && b[0] != 0 && b[0] != Version4 {
		return Reply4{}, 0, ErrVersion
	}
	if len(b) < head4 {
		return Reply4{}, 0, ErrShort
	}
	return Reply4{
		Version: b[0],
		Code:    Code4(b[1]),
		Port:    uint16(b[2])<<8 | uint16(b[3]),
		IP:      netip.AddrFrom4([4]byte(b[4:8])),
	}, head4, nil
}

// Append writes the reply behind b.
func (r Reply4) Append(b []byte) []byte {
	ip := r.IP.As4()
	return append(b, r.Version, byte(r.Code), byte(r.Port>>8), byte(r.Port), ip[0], ip[1], ip[2], ip[3])
}
