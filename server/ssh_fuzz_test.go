//go:build unix

package server

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/datagram"
)

// FuzzSSHPayloads: what clients ask for is refused or read as what it is, in one
// canonical form, whatever stands in it.
func FuzzSSHPayloads(f *testing.F) {
	for _, seed := range []string{
		"", "\x00\x00\x00\x08intranet\x00\x00\x00\x50", "\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x0910.0.0.1.\x00\x00\x00\x50",
		"\x00\x00\x00\x09127.0.0.1\x00\x00\x00\x50\x00\x00\x00\x01x\x00\x00\x00\x01", "\xff\xff\xff\xff", "\x00\x00\x00\x02::\x00\x01\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if target, err := parseDirect(payload); err == nil {
			again, err := parseDirect(ssh.Marshal(sshForward{Host: target.Host(), Port: uint32(target.Port)}))
			if err != nil || again != target {
				t.Fatalf("%v became %v, %v", target, again, err)
			}
		} else if ReasonOf(err) != BadRequest {
			t.Fatalf("%v", err)
		}
		host, port, err := parseForward(payload)
		if err != nil {
			return
		}
		target, err := offered(host, port)
		if err == nil && target != everyPeer && (target.Name == "" || target.IP.IsValid() || target.Port == 0) {
			t.Fatalf("%q, %d is %+v", host, port, target)
		}
	})
}

// FuzzSSHConnection is a client that has signed in and then asks for what it likes:
// the server answers each question, and others are served as before.
func FuzzSSHConnection(f *testing.F) {
	f.Add([]byte{0}, "tcpip-forward", []byte("\x00\x00\x00\x08intranet\x00\x00\x00\x50"))
	f.Add([]byte{0, 0, 1}, "cancel-tcpip-forward", []byte("\x00\x00\x00\x08intranet\x00\x00\x00\x50"))
	f.Add([]byte{1}, "direct-tcpip", []byte("\x00\x00\x00\x09127.0.0.2\x00\x00\x00\x50\x00\x00\x00\x01x\x00\x00\x00\x01"))
	f.Add([]byte{1, 2, 2}, "session", []byte("shell"))
	f.Add([]byte{1, 2}, "forwarded-tcpip", []byte(resetRequest))
	f.Add([]byte{1, 1, 3}, datagram.Channel, []byte("\x00\x00\x00\x08intranet\x00\x00\x00\x50"))
	listener := sshListener(f)
	f.Fuzz(func(t *testing.T, script []byte, kind string, payload []byte) {
		r := inMemory(t, &Server{Policy: deciding(offering), Authenticator: door{login: LoginOptional}}, listener)
		client := signIn(t, r.client())
		var channel ssh.Channel
		for _, step := range script[:min(len(script), 20)] {
			switch {
			case step%4 == 0:
				if _, _, err := client.SendRequest(kind, true, payload); err != nil {
					t.Fatalf("a request %q: %v", kind, err)
				}
			case step%4 == 1:
				if c, requests, err := client.OpenChannel(kind, payload); err == nil {
					go ssh.DiscardRequests(requests)
					channel = c
				}
			case step%4 == 2 && channel != nil:
				_, _ = channel.SendRequest(string(payload), true, payload) // the channel may be closed by now
			case channel != nil:
				_ = channel.Close() // likewise
			}
		}
		if ok, _, err := client.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
			t.Fatalf("the connection: %v, %v", ok, err)
		}
		client.Close()
	})
}
