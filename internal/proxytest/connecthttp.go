package proxytest

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// HTTP is CONNECT of HTTP/1.1, with the header fields that are given besides
// Host, each with its CR LF.
func HTTP(fields string) Protocol {
	return Protocol{
		Name: "http",
		Opening: func(target netip.AddrPort) []byte {
			return fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, target, fields)
		},
		Answer: answerHTTP,
	}
}

// answerHTTP reads a head byte by byte, so as not to take what follows, and the
// page of a refusal.
func answerHTTP(from io.Reader) (bool, error) {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := io.ReadFull(from, b[:]); err != nil {
			return false, fmt.Errorf("after %q: %w", head, err)
		}
		head = append(head, b[0])
	}
	status, fields, _ := strings.Cut(string(head), "\r\n")
	if strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return true, nil
	}
	_, after, _ := strings.Cut(fields, "Content-Length: ")
	digits, _, _ := strings.Cut(after, "\r\n")
	length, err := strconv.Atoi(digits)
	if err != nil || !strings.HasPrefix(status, "HTTP/1.1 ") {
		return false, fmt.Errorf("the answer %q has no length, or is none", head)
	}
	_, err = io.CopyN(io.Discard, from, int64(length))
	return false, err
}
