//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Protocol is how a client asks the proxy for the target.
type Protocol string

// The protocols. Fixed asks for nothing: the proxy knows where to go.
const (
	Fixed  Protocol = "fixed"
	Socks4 Protocol = "socks4"
	Socks5 Protocol = "socks5"
	HTTP   Protocol = "http"
)

// errRefused is a proper answer by which a proxy refuses.
var errRefused = errors.New("the proxy refuses")

// open asks for target, and returns when it stands. It reads no byte too many.
func (p Protocol) open(conn net.Conn, target netip.AddrPort) error {
	if p == Fixed {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	defer conn.SetDeadline(time.Time{})
	ip := target.Addr().As4()
	port := binary.BigEndian.AppendUint16(nil, target.Port())
	switch p {
	case Socks4:
		ask := append(append(append([]byte{4, 1}, port...), ip[:]...), 0)
		return exchange(conn, ask, 8, func(answer []byte) bool { return answer[1] == 90 })
	case Socks5:
		if err := exchange(conn, []byte{5, 1, 0}, 2, func(answer []byte) bool { return answer[1] == 0 }); err != nil {
			return err
		}
		ask := append(append([]byte{5, 1, 0, 1}, ip[:]...), port...)
		return exchange(conn, ask, 10, func(answer []byte) bool { return answer[1] == 0 && answer[3] == 1 })
	case HTTP:
		return openHTTP(conn, target.String())
	}
	return fmt.Errorf("unknown protocol %q", p)
}

// exchange sends ask and reads an answer of size bytes, which must be good.
func exchange(conn net.Conn, ask []byte, size int, good func([]byte) bool) error {
	if _, err := conn.Write(ask); err != nil {
		return err
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("the proxy's answer: %w", err)
	}
	if !good(answer) {
		return fmt.Errorf("%w: % x", errRefused, answer)
	}
	return nil
}

// openHTTP relies on a target that says nothing before it is spoken to: the answer's head is all that comes.
func openHTTP(conn net.Conn, target string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return err
	}
	head := make([]byte, 0, 4<<10)
	for !bytes.Contains(head, []byte("\r\n\r\n")) { // a page may follow
		n, err := conn.Read(head[len(head):cap(head)])
		if err != nil {
			return fmt.Errorf("the proxy's answer: %w", err)
		}
		head = head[:len(head)+n]
	}
	if _, rest, _ := bytes.Cut(head, []byte(" ")); !bytes.HasPrefix(rest, []byte("200")) {
		return fmt.Errorf("%w: %.60q", errRefused, head)
	}
	return nil
}
