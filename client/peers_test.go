//go:build unix

package client_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// Proxies that others wrote, besides Dante: each on loopback, with and without
// a login.

// peer is a proxy as Debian has it. start runs it at addr; with a login it lets in
// alice with the password secret only.
type peer struct {
	name    string
	schemes []string
	refused client.Code // where nobody listens
	start   func(t *testing.T, addr *net.TCPAddr, login bool)
}

func peers() []peer {
	return []peer{
		{"microsocks", []string{"socks5", "socks5h"}, socks.Refused5, startMicrosocks},
		{"squid", []string{"http"}, client.Status(503), startSquid},
		{"squid over TLS", []string{"https"}, client.Status(503), startSquidTLS},
		{"tinyproxy", []string{"http"}, client.Status(500), startTinyproxy},
	}
}

func TestPeers(t *testing.T) {
	for _, p := range peers() {
		t.Run(p.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("needs Debian's packages")
			}
			for _, login := range []bool{false, true} {
				addr := freeAddr(t)
				p.start(t, addr, login)
				for _, scheme := range p.schemes {
					t.Run(fmt.Sprintf("%s, a login: %v", scheme, login), func(t *testing.T) { p.check(t, scheme, addr.String(), login) })
				}
			}
		})
	}
}

func (p peer) check(t *testing.T, scheme, addr string, login bool) {
	dialer := func(user string) *client.Dialer {
		d, err := client.New(scheme+"://"+user+addr, client.WithTLSConfig(&tls.Config{InsecureSkipVerify: true}))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := dialer("")
	if login {
		d = dialer("alice:secret@")
		for _, user := range []string{"", "alice:wrong@", "mallory:secret@"} {
			if _, err := dialer(user).Dial("tcp", freeAddr(t).String()); !errors.Is(err, client.ErrLogin) {
				t.Errorf("%q is let in, or not for the login: %v", user, err)
			}
		}
	}
	checkEchoes(t, d, "127.0.0.1")
	checkEchoes(t, d, "localhost")
	_, err := d.Dial("tcp", freeAddr(t).String())
	if refusal, ok := errors.AsType[*client.ReplyError](err); !ok || refusal.Code != p.refused {
		t.Errorf("nobody listens: %v, want code %v", err, p.refused)
	}
	if ln, err := d.Listen(t.Context(), "tcp", "127.0.0.1:21"); !errors.Is(err, client.ErrUnsupported) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("BIND: %v, %v; want that it is unsupported", ln, err)
	}
	if conn, err := d.ListenPacket(t.Context(), "udp", ""); !errors.Is(err, client.ErrUnsupported) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("UDP: %v, %v; want that it is unsupported", conn, err)
	}
}

// checkEchoes sends some hundred kilobytes to an echo on this machine, known by
// host, and gets them back. (Not each of these proxies passes on a half-close,
// which checkConnects needs.)
func checkEchoes(t *testing.T, d *client.Dialer, host string) {
	t.Helper()
	server := startServer(func(c net.Conn) {
		if _, err := io.Copy(c, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Addr())
	conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("stressed desserts\n"), 20_000)
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back, or others: %v", n, len(sent), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// runPeer runs a proxy until the test ends, and returns when it answers at addr.
func runPeer(t *testing.T, addr *net.TCPAddr, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it may have children
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (tools/packages brings it in)", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // it is told to end; how it does tells nothing
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Errorf("%s did not end when told to", command[0])
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if text, err := os.ReadFile(said.Name()); err == nil && t.Failed() {
			t.Logf("%s said:\n%s", command[0], text)
		}
	})
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("%s has ended", command[0])
		case <-limit:
			t.Fatalf("%s does not answer at %v", command[0], addr)
		}
	}
}

func startMicrosocks(t *testing.T, addr *net.TCPAddr, login bool) {
	t.Helper()
	command := []string{"microsocks", "-i", addr.IP.String(), "-p", strconv.Itoa(addr.Port)}
	if login {
		command = append(command, "-u", "alice", "-P", "secret")
	}
	runPeer(t, addr, command...)
}

func startTinyproxy(t *testing.T, addr *net.TCPAddr, login bool) {
	t.Helper()
	text := fmt.Sprintf("Listen %v\nPort %d\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\n", addr.IP, addr.Port)
	if login {
		text += "BasicAuth alice secret\n"
	}
	runPeer(t, addr, "tinyproxy", "-d", "-c", peerFile(t, "tinyproxy.conf", text))
}

func startSquid(t *testing.T, addr *net.TCPAddr, login bool) {
	t.Helper()
	runSquid(t, addr, fmt.Sprintf("http_port %v", addr), login)
}

func startSquidTLS(t *testing.T, addr *net.TCPAddr, login bool) {
	t.Helper()
	certificate := peerCertificate(t)
	runSquid(t, addr, fmt.Sprintf("https_port %v tls-cert=%s tls-key=%[2]s", addr, certificate), login)
}

func runSquid(t *testing.T, addr *net.TCPAddr, port string, login bool) {
	t.Helper()
	text := port + `
pid_filename none
cache deny all
access_log none
cache_store_log none
cache_log /dev/null
netdb_filename none
coredump_dir /
pinger_enable off
shutdown_lifetime 0 seconds
`
	who := "all"
	if login {
		hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text += "auth_param basic program /usr/lib/squid/basic_ncsa_auth " + peerFile(t, "passwords", "alice:"+string(hash)+"\n") + "\n" +
			"auth_param basic children 1\nacl known proxy_auth REQUIRED\n"
		who = "known"
	}
	runPeer(t, addr, "squid", "-N", "-d1", "-f", peerFile(t, "squid.conf", text+"http_access allow "+who+"\n"))
}

// peerFile writes a file that a proxy can read that has given up being root.
func peerFile(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

// peerCertificate writes a certificate that nobody vouches for, and its key.
func peerCertificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return peerFile(t, "proxy.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
