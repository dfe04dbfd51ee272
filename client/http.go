package client

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/socks"
)

const (
	maxHead    = 64 << 10 // bytes of a response's head
	maxInterim = 8        // responses 1xx before the one that counts
	maxWord    = 255      // bytes kept of what a proxy says of a refusal
)

// httpProxy asks HTTP proxies by CONNECT (RFC 9110, section 9.3.6).
type httpProxy struct {
	authorization string // the value of Proxy-Authorization; empty: none
}

func newHTTP(user *url.Userinfo) (protocol, error) {
	p := httpProxy{}
	if user == nil || user.String() == "" {
		return p, nil
	}
	name := user.Username()
	password, _ := user.Password()
	if strings.ContainsRune(name, ':') || strings.ContainsFunc(name+password, isControl) {
		return nil, errors.New("client: the user in the proxy URL has a colon, or user or password a control character; HTTP cannot carry that")
	}
	p.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
	return p, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func (httpProxy) greet(net.Conn) error { return nil } // the request is what comes first

func (httpProxy) names() bool { return true }

func (httpProxy) carries(cmd socks.Command) error {
	if cmd != socks.Connect {
		return fmt.Errorf("HTTP proxies only connect: %w", errors.ErrUnsupported)
	}
	return nil
}

func (httpProxy) fits(ip netip.Addr) bool { return ip.IsValid() }

func (httpProxy) second() *reader[reply] { return nil }

func (p httpProxy) ask(conn net.Conn, _ socks.Command, target socks.Addr) (reply, error) {
	if err := send(conn, "request", p.request(target)); err != nil {
		return reply{}, err
	}
	limit := maxHead
	for range maxInterim {
		r := reader[reply]{parse: func(have []byte) (reply, int, error) { return parseHead(have, limit) }}
		answer, err := r.read(conn)
		if status, _ := answer.code.(Status); err != nil || !status.isInterim() {
			return answer, err
		}
		limit -= len(r.have)
	}
	return reply{}, errors.New("the proxy has sent too many responses 1xx")
}

func (p httpProxy) request(target socks.Addr) []byte {
	b := fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n", target)
	if p.authorization != "" {
		b = fmt.Appendf(b, "Proxy-Authorization: %s\r\n", p.authorization)
	}
	return append(b, "\r\n"...)
}

// parseHead reads the head of a response. A body there may be is left alone: a
// granted request has none, and after a refusal the connection is closed.
func parseHead(have []byte, limit int) (reply, int, error) {
	const sample = "HTTP/1.1 200"
	for i, c := range have[:min(len(have), len(sample))] {
		want := sample[i]
		if c != want && (i < len("HTTP/1.") || !isDigit(want) || !isDigit(c)) {
			return reply{}, 0, notHTTP(have)
		}
	}
	if len(have) > len(sample) && strings.IndexByte(" \r\n", have[len(sample)]) < 0 {
		return reply{}, 0, notHTTP(have)
	}
	if missing := missingHead(have, len(sample)); missing > 0 {
		if len(have)+missing > limit {
			return reply{}, 0, fmt.Errorf("the head of the proxy's response has more than %d bytes", maxHead)
		}
		return reply{}, missing, nil
	}
	status := Status(have[9]-'0')*100 + Status(have[10]-'0')*10 + Status(have[11]-'0')
	r := reply{code: status, granted: status/100 == 2}
	if !r.granted {
		r.reason, r.rule = explanation(have)
	}
	return r, 0, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func notHTTP(have []byte) error {
	if have[0] != 'H' {
		return wrongVersion(have[0])
	}
	return fmt.Errorf("%w: the reply begins like HTTP/1 and does not go on so", socks.ErrVersion)
}

// missingHead returns how many bytes a head has still at the least: it ends
// with an empty line, and no line is longer than it must be.
func missingHead(have []byte, statusLine int) int {
	n := len(have)
	switch {
	case n < statusLine:
		return statusLine + 2 - n
	case bytes.HasSuffix(have, []byte("\n\n")), bytes.HasSuffix(have, []byte("\n\r\n")):
		return 0
	case bytes.HasSuffix(have, []byte("\n")), bytes.HasSuffix(have, []byte("\n\r")):
		return 1
	}
	return 2
}

// explanation returns what Sallyport says of a refusal, and nothing where
// another proxy says nothing or something that cannot be read.
func explanation(head []byte) (reason, rule string) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(head)))
	if _, err := r.ReadLine(); err != nil {
		return "", ""
	}
	fields, err := r.ReadMIMEHeader()
	if err != nil {
		return "", ""
	}
	rule = fields.Get("Sallyport-Rule")
	if name, err := strconv.Unquote(rule); err == nil { // rules may have any name
		rule = name
	}
	return cutWord(fields.Get("Sallyport-Reason")), cutWord(rule)
}

func cutWord(s string) string { return s[:min(len(s), maxWord)] }
