//go:build linux

package main_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// webSocketClient sends a message of its standard input to each URL, and writes
// what comes back. It is Python's because curl of Debian 12 has no WebSocket.
const webSocketClient = `
import os, ssl, sys, websocket
kind, host, port, login = sys.argv[1:5]
sent = sys.stdin.buffer.read()
for url in sys.argv[5:]:
    ws = websocket.create_connection(url, timeout=20, sslopt={"cert_reqs": ssl.CERT_NONE, "check_hostname": False},
        proxy_type=kind, http_proxy_host=host, http_proxy_port=port, http_proxy_auth=tuple(login.split(":")) if login else None)
    ws.send_binary(sent)
    sys.stdout.buffer.write(ws.recv())
    ws.close()
`

// TestWebSocket sends a message there and back, over ws and over wss.
func TestWebSocket(t *testing.T) {
	paperSlow(t)
	for _, p := range curlProxies() {
		if p.scheme == "https" || p.user == "carol" { // which this client has not
			continue
		}
		t.Run(p.scheme+"://"+p.login, func(t *testing.T) {
			t.Parallel()
			o := newOfficeFor(t, p.user != "")
			o.serveWebSockets(t)
			sent := paperBytes(60_000)
			got := o.run(t, sent, nil, "/usr/bin/python3", "-c", webSocketClient, p.scheme, officeWall, "1080", strings.TrimSuffix(p.login, "@"),
				"ws://"+p.host+"/", "wss://"+p.host+"/")
			sameBytes(t, "there and back, twice", got, append(insideOut(sent), insideOut(sent)...))
			for _, port := range []string{"80", "443"} {
				o.session(t, paperSession{Command: "connect", Protocol: p.protocol, User: p.user, Target: net.JoinHostPort(p.host, port)})
			}
		})
	}
}

// TestWebSocketUpgrade begins a WebSocket without a tunnel: the proxy passes the
// Upgrade on, and what the target says behind it.
func TestWebSocketUpgrade(t *testing.T) {
	paperSlow(t)
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			o, certificate := newOfficeTLS(t, true)
			o.serveWebSockets(t)
			got := o.run(t, nil, nil, "curl", "--silent", "--show-error", "--noproxy", "", "--http1.1", "--include",
				"--proxy-cacert", certificate, "--proxy", scheme+"://"+officeLogin+"@"+officeProxy,
				"--header", "Connection: Upgrade", "--header", "Upgrade: websocket",
				"--header", "Sec-WebSocket-Version: 13", "--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "http://"+officeName+"/hello")
			// The key and the answer to it are the example of RFC 6455, section 1.3.
			head, frame, _ := strings.Cut(string(got), "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") || frame != "\x82\x05hello" {
				t.Errorf("curl got %q", got)
			}
			o.session(t, paperSession{Command: "connect", Protocol: "http", User: officeUser, Target: officeName + ":80"})
		})
	}
}

// serveWebSockets runs a WebSocket server outside, plain and over TLS, that
// sends each message back inside out, and says hello at /hello and leaves.
func (o *office) serveWebSockets(t *testing.T) {
	t.Helper()
	o.serveWeb(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveWebSocket(t, w, r) }))
}

func serveWebSocket(t *testing.T, w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		http.Error(w, "no WebSocket", http.StatusBadRequest)
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	w.Header().Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Connection", "Upgrade")
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if r.URL.Path == "/hello" {
		_, _ = io.WriteString(c, "\x82\x05hello") // the client tells
		return
	}
	for {
		opcode, message, err := readFrame(rw.Reader)
		if err != nil {
			return // the client's end of it tells
		}
		if opcode == 2 {
			message = insideOut(message)
		}
		head := binary.BigEndian.AppendUint16([]byte{0x80 | opcode, 126}, uint16(len(message)))
		if len(message) < 126 {
			head = []byte{0x80 | opcode, byte(len(message))}
		}
		if _, err := c.Write(append(head, message...)); err != nil {
			return
		}
	}
}

// readFrame reads a frame of a client, which masks what it sends: RFC 6455,
// section 5.2.
func readFrame(r *bufio.Reader) (opcode byte, message []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	if head[0]&0x80 == 0 || head[1]&0x80 == 0 {
		return 0, nil, fmt.Errorf("a frame that begins with % x", head)
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(r, long[:]); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	masked := make([]byte, 4+size)
	if _, err := io.ReadFull(r, masked); err != nil {
		return 0, nil, err
	}
	mask, message := masked[:4], masked[4:]
	for i := range message {
		message[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, message, nil
}
