//go:build linux

package main_test

import (
	"fmt"
	"net"
	"testing"
)

// Programs that know only UDP, with Dante's client library under them. Its BIND
// is in TestFTPActive and TestFTPActive5.

// askTwo sends a datagram from one socket to each of two servers, and writes
// what comes back.
const askTwo = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
sent = sys.stdin.buffer.read()
for port in sys.argv[2:]:
    s.sendto(sent, (sys.argv[1], int(port)))
    got, source = s.recvfrom(65536)
    if source != (sys.argv[1], int(port)):
        sys.exit("from %s" % (source,))
    sys.stdout.buffer.write(got)
`

// TestSocksifyUDP sends datagrams by a client that connects its socket and by
// one that does not.
func TestSocksifyUDP(t *testing.T) {
	paperSlow(t)
	for _, client := range []struct {
		name    string
		times   int // that the answer comes
		command func(ports []string) []string
	}{
		{"a connected socket", 1, func(ports []string) []string {
			return []string{"nc.openbsd", "-u", "-W", "1", officeOutside, ports[0]}
		}},
		{"an unconnected socket and two targets", 2, func(ports []string) []string {
			return append([]string{"/usr/bin/python3", "-c", askTwo, officeOutside}, ports...)
		}},
	} {
		for _, login := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a login: %v", client.name, login), func(t *testing.T) {
				t.Parallel()
				settings, method, env := "log: {format: json}\nrules: {allow: the office, from: 10.1.0.0/24, to: any, commands: udp", "none", []string{"HOME=" + t.TempDir()}
				want := paperSession{Protocol: "socks5", Command: "udp", Reason: "closed", Up: int64(1000 * client.times), Down: int64(1000 * client.times)}
				if login {
					settings += ", proof: password"
					method, want.User = "username", officeUser
					env = append(env, "SOCKS_USERNAME="+officeUser, "SOCKS_PASSWORD="+officePassword)
				}
				settings += fmt.Sprintf("}\nusers: {file: %q}\n", paper5Users(t, officeLogin))
				o := newOffice(t, settings)
				conf := writeFile(t, "socks.conf", []byte(`
logoutput: stderr
route {
	from: 0.0.0.0/0 to: 0.0.0.0/0 via: `+officeWall+` port = 1080
	proxyprotocol: socks_v5
	protocol: tcp udp
	command: connect udpassociate
	method: `+method+`
}
`))
				sent := paperBytes(1000)
				command := client.command([]string{o.mirrorUDP(t), o.mirrorUDP(t)})
				got := o.run(t, sent, append(env, "SOCKS_CONF="+conf), append([]string{"socksify"}, command...)...)
				answer := insideOut(sent)
				for range client.times - 1 {
					answer = append(answer, insideOut(sent)...)
				}
				sameBytes(t, "there and back", got, answer)
				o.session(t, want)
			})
		}
	}
}

// mirrorUDP is a target outside that sends each datagram back inside out. It
// returns its port.
func (o *office) mirrorUDP(t *testing.T) string {
	t.Helper()
	var socket net.PacketConn
	var err error
	o.outside.do(func() { socket, err = net.ListenPacket("udp", officeOutside+":0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := socket.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(insideOut(b[:n]), from) // the client's side tells
		}
	}()
	_, port, _ := net.SplitHostPort(socket.LocalAddr().String())
	return port
}
