//go:build linux

package main_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
)

// gateway is a proxy that speaks ssh, has a virtual port, and is known to bob by
// his key.
type gateway struct {
	*paperServer
	t        *testing.T
	dir      string
	ssh      netip.AddrPort // where clients come to
	visitors netip.AddrPort // where visitors of the virtual port do
	packets  netip.AddrPort // where those of the one for datagrams do
}

const gatewaySettings = `
log: {format: json}
listeners: {name: lan, listen: 127.0.0.1:0, protocols: [socks4a, socks5, http, ssh], bind_ports: 20000-60000}
users: {file: %[1]s/users}
ssh: {host_key: %[1]s/host_key}
virtual_ports: [{name: intranet, listen: 127.0.0.1:0, users: bob}, {name: dns, listen: udp/127.0.0.1:0, users: bob}]
rules:
  - {allow: keys, proof: key, to: loopback, bind: {any_peer: true}}
  - {allow: visitors, from: loopback, to: [intranet, dns]}
`

func newGateway(t *testing.T) *gateway {
	t.Helper()
	paperSlow(t)
	g := &gateway{t: t, dir: t.TempDir()}
	key := filepath.Join(g.dir, "key")
	g.command(nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	g.sallyport("secret\n", "user", "add", "bob", "--file", filepath.Join(g.dir, "users"))
	g.sallyport("", "user", "key", "bob", key+".pub", "--file", filepath.Join(g.dir, "users"))
	g.paperServer = startPaper(t, paperSetup{settings: fmt.Sprintf(gatewaySettings, g.dir), listen: "-"})
	g.ssh, g.visitors, g.packets = g.addrs[0], g.addrs[1], g.addrs[2]
	fingerprint := strings.Fields(string(g.sallyport("", "hostkey", "--config", writeFile(t, "s.yaml", []byte("ssh: {host_key: "+g.dir+"/host_key}")))))
	if text := strings.Join(g.stdout.all(), "\n"); !strings.Contains(text, fingerprint[0]) {
		t.Errorf("the key is %s, and the program said\n%s", fingerprint[0], text)
	}
	g.write("known_hosts", fmt.Sprintf("gw %s %s\n", fingerprint[2], fingerprint[3]))
	g.write("config", fmt.Sprintf("Host gw\n HostName 127.0.0.1\n Port %d\n User bob\n HostKeyAlias gw\nHost *\n IdentityFile %[2]s/key\n"+
		" UserKnownHostsFile %[2]s/known_hosts\n IdentitiesOnly yes\n BatchMode yes\n ExitOnForwardFailure yes\n", g.ssh.Port(), g.dir))
	return g
}

func (g *gateway) write(name, text string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// sallyport runs the program, and returns what it prints.
func (g *gateway) sallyport(in string, args ...string) []byte {
	g.t.Helper()
	program, err := paperProgram()
	if err != nil {
		g.t.Fatal(err)
	}
	return g.command([]byte(in), append([]string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd())}, args...)...)
}

// command runs a client and returns what it prints. The test fails when the client
// does.
func (g *gateway) command(in []byte, command ...string) []byte {
	g.t.Helper()
	out, said, err := g.try(in, command...)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, paperCut(out), said)
	}
	return out
}

func (g *gateway) try(in []byte, command ...string) (out, said []byte, err error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*paperPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	err = cmd.Run()
	return stdout.Bytes(), stderr.Bytes(), err
}

// client starts an ssh client that stays, and returns how to end it.
func (g *gateway) client(args ...string) (end func(syscall.Signal), said *paperLines) {
	g.t.Helper()
	said = &paperLines{}
	cmd := exec.Command("ssh", append([]string{"-F", filepath.Join(g.dir, "config"), "-N"}, args...)...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	var once sync.Once
	end = func(by syscall.Signal) {
		once.Do(func() {
			_ = cmd.Process.Signal(by) // it may have ended by itself
			_ = cmd.Wait()             // how is for the test to look at
		})
	}
	g.t.Cleanup(func() {
		end(syscall.SIGKILL)
		if g.t.Failed() {
			g.t.Logf("ssh said:\n%s", strings.Join(said.all(), "\n"))
		}
	})
	return end, said
}

// visit connects to the virtual port until somebody offers it.
func (g *gateway) visit() *net.TCPConn {
	g.t.Helper()
	var c *net.TCPConn
	paperEventually(g.t, "a visitor is served", func() bool {
		var err error
		if c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(g.visitors)); err != nil {
			g.t.Fatal(err)
		}
		if err := exchangeNoise(c, 100, 100); err != nil {
			c.Close()
			return false
		}
		return true
	})
	g.t.Cleanup(func() { c.Close() })
	return c
}

// visitSlowly is a visitor who asks for much, and takes none of it.
func (g *gateway) visitSlowly() *net.TCPConn {
	g.t.Helper()
	c := g.visit()
	if _, err := c.Write(append(make([]byte, 12), 0x7f, 0, 0, 0)); err != nil {
		g.t.Fatal(err)
	}
	if err := sayNoise(c, 0); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// visitBy asks the proxy for the virtual port by its name.
func (g *gateway) visitBy(scheme string) {
	g.t.Helper()
	d, err := client.New(scheme + "://" + g.ssh.String())
	if err != nil {
		g.t.Fatal(err)
	}
	c, err := d.DialContext(g.t.Context(), "tcp", "intranet:80")
	if err != nil {
		g.t.Errorf("%s: %v", scheme, err)
		return
	}
	defer c.Close()
	if err := exchangeNoise(c, 1000, 1000); err != nil {
		g.t.Errorf("%s: %v", scheme, err)
	}
}

// reaches tries until a conversation has come about.
func (g *gateway) reaches(what string, dial func() (net.Conn, error)) {
	g.t.Helper()
	paperEventually(g.t, what, func() bool {
		c, err := dial()
		if err != nil {
			return false
		}
		defer c.Close()
		return exchangeNoise(c, 1<<20, 1<<20) == nil
	})
}

// freeAddress is one where nobody listens, most likely.
func freeAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// noiseServer is a service on loopback: it is told how many bytes it gets and how
// many are wanted, takes the first with a checksum behind them, and answers with
// the second. A conversation can go on with the next.
func noiseServer(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for answerNoise(c) == nil {
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func answerNoise(c net.Conn) error {
	var head [16]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	up, down := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:])
	if err := hearNoise(c, int64(up)); err != nil {
		return err
	}
	return sayNoise(c, int64(down))
}

// exchangeNoise is the other side of answerNoise.
func exchangeNoise(c net.Conn, up, down int64) error {
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(up)), uint64(down))
	if _, err := c.Write(head); err != nil {
		return err
	}
	if err := sayNoise(c, up); err != nil {
		return err
	}
	return hearNoise(c, down)
}

func sayNoise(c io.Writer, n int64) error {
	sum := sha256.New()
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], rand.Uint64())
	if _, err := io.CopyN(io.MultiWriter(c, sum), rand.NewChaCha8(seed), n); err != nil {
		return err
	}
	_, err := c.Write(sum.Sum(nil))
	return err
}

func hearNoise(c io.Reader, n int64) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, c, n); err != nil {
		return err
	}
	told := make([]byte, sum.Size())
	if _, err := io.ReadFull(c, told); err != nil {
		return err
	}
	if !bytes.Equal(told, sum.Sum(nil)) {
		return errors.New("other bytes arrived than were sent")
	}
	return nil
}

// TestVirtualPortOfSSH: OpenSSH's client offers a service, it is reached in every
// way, by many at once, cut, and there again.
func TestVirtualPortOfSSH(t *testing.T) {
	g := newGateway(t)
	offer := "intranet:80:" + noiseServer(t).String()
	end, _ := g.client("-R", offer, "gw")
	g.visit()

	for _, scheme := range []string{"socks4a", "socks5h", "http"} {
		g.visitBy(scheme)
	}

	slow := g.visitSlowly()
	var all sync.WaitGroup
	for range 64 {
		c := g.visit()
		all.Go(func() {
			if err := exchangeNoise(c, 1<<20, 1<<20); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()

	for _, by := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		end(by)
		if n, err := io.Copy(io.Discard, slow); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: %d bytes, then %v; want a reset", by, n, err)
		}
		end, _ = g.client("-R", offer, "gw")
		slow = g.visitSlowly()
	}

	// Without his key bob has nothing any more.
	g.write("users.keys", "")
	if n, err := io.Copy(io.Discard, slow); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the key is gone: %d bytes, then %v; want a reset", n, err)
	}
	g.stderr.until(t, g.done, "the offer was revoked", func(line string) bool {
		s, ok := paperRecord(line)
		return ok && s.Protocol == "ssh" && s.Command == "bind" && s.Reason == "revoked"
	})
}

// TestForwardingOverSSH: what ssh clients forward through the proxy, under its
// rules.
func TestForwardingOverSSH(t *testing.T) {
	g := newGateway(t)
	service := noiseServer(t)
	local, dynamic := freeAddress(t), freeAddress(t)
	_, said := g.client("-L", local.String()+":"+service.String(), "-D", dynamic.String(), "-R", "0:"+service.String(), "-o", "RekeyLimit=256K", "gw")
	g.reaches("-L", func() (net.Conn, error) { return net.Dial("tcp", local.String()) })
	g.reaches("-D", func() (net.Conn, error) {
		d, err := client.New("socks5h://" + dynamic.String())
		if err != nil {
			return nil, err
		}
		return d.DialContext(t.Context(), "tcp", service.String())
	})
	var remote string
	paperEventually(t, "ssh says which port it was given", func() bool {
		_, rest, found := strings.Cut(strings.Join(said.all(), "\n"), "Allocated port ")
		remote, _, _ = strings.Cut(rest, " ")
		return found
	})
	g.reaches("-R 0", func() (net.Conn, error) { return net.Dial("tcp", "127.0.0.1:"+remote) })
}

// TestProgramsOfSSH: what OpenSSH's programs do with the proxy in between.
func TestProgramsOfSSH(t *testing.T) {
	g := newGateway(t)
	service := noiseServer(t)
	// -W, and what the rules do not allow.
	conf := filepath.Join(g.dir, "config")
	head := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 0), 1000)
	var in bytes.Buffer
	in.Write(head)
	if err := sayNoise(&in, 0); err != nil {
		t.Fatal(err)
	}
	if err := hearNoise(bytes.NewReader(g.command(in.Bytes(), "ssh", "-F", conf, "-W", service.String(), "gw")), 1000); err != nil {
		t.Errorf("-W: %v", err)
	}
	if _, said, err := g.try(nil, "ssh", "-F", conf, "-W", "192.0.2.1:80", "gw"); err == nil || !bytes.Contains(said, []byte("(denied)")) {
		t.Errorf("-W to what is not allowed: %v\n%s", err, said)
	}
	if _, said, err := g.try(nil, "ssh", "-F", conf, "gw", "ls"); err == nil || !bytes.Contains(said, []byte("it forwards connections and has no shell")) {
		t.Errorf("a program: %v\n%s", err, said)
	}

	// A client that waits for the server to speak.
	out := g.command(nil, "ssh-keyscan", "-T", "20", "-t", "ed25519", "-p", fmt.Sprint(g.ssh.Port()), "127.0.0.1")
	known, err := os.ReadFile(filepath.Join(g.dir, "known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	if key := strings.Fields(string(known))[2]; !bytes.Contains(out, []byte(key)) {
		t.Errorf("ssh-keyscan says %q, want the key %s", out, key)
	}
}

// TestJumpHost: ssh -J goes on to an sshd behind the proxy.
func TestJumpHost(t *testing.T) {
	g := newGateway(t)
	sshd := freeAddress(t)
	g.command(nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(g.dir, "sshd_key"))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	g.write("sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey %[2]s/sshd_key\nAuthorizedKeysFile %[2]s/key.pub\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n", sshd, g.dir))
	background(t, nil, sshd.String(), "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(g.dir, "sshd_config"))
	sent := paperBytes(megabyte)
	got := g.command(sent, "ssh", "-F", filepath.Join(g.dir, "config"), "-J", "gw", "-o", "StrictHostKeyChecking=no", "-p", fmt.Sprint(sshd.Port()), "root@127.0.0.1", "cat")
	sameBytes(t, "-J", got, sent)
}

// publish has the program offer a service until the test ends.
func (g *gateway) publish(args ...string) {
	g.t.Helper()
	fingerprint := strings.Fields(string(g.command(nil, "ssh-keygen", "-l", "-f", filepath.Join(g.dir, "host_key"))))[1]
	program, err := paperProgram()
	if err != nil {
		g.t.Fatal(err)
	}
	background(g.t, nil, g.visitors.String(), append([]string{
		fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), "publish",
		"--server", "ssh://bob@" + g.ssh.String(), "--identity", filepath.Join(g.dir, "key"), "--fingerprint", fingerprint,
	}, args...)...)
}

// TestPublishDatagrams: a service of UDP, socat's, is reached by socat, and by a client
// of the proxy who asks for its name.
func TestPublishDatagrams(t *testing.T) {
	g := newGateway(t)
	at := freeAddress(t)
	background(t, nil, at.String(), "bash", "-c", `socat UDP4-LISTEN:"$0",bind=127.0.0.1,fork PIPE & exec socat TCP4-LISTEN:"$0",bind=127.0.0.1,reuseaddr,fork PIPE`, fmt.Sprint(at.Port()))
	g.publish("dns=udp/" + at.String())
	paperEventually(t, "a visitor is served", func() bool {
		return string(g.command([]byte("hello"), "socat", "-t", "1", "-", "UDP4:"+g.packets.String())) == "hello"
	})
	d, err := client.New("socks5h://" + g.ssh.String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.ListenPacket(t.Context(), "udp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	said := paperBytes(1000)
	if _, err := c.WriteTo(said, client.Addr{Transport: "udp", HostPort: "dns:53"}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2000)
	n, from, err := c.ReadFrom(got)
	if err != nil || from.String() != "dns:53" {
		t.Fatalf("from %v, %v", from, err)
	}
	sameBytes(t, "by the name", got[:n], said)
	c.Close()
	line := g.stderr.until(t, g.done, "the record", func(line string) bool {
		r, ok := paperRecord(line)
		return ok && r.Command == "udp" && r.Protocol == "socks5"
	})
	if r, _ := paperRecord(line); r.Rule != "visitors" || r.Up != 1000 || r.Down != 1000 {
		t.Errorf("the record is %+v", r)
	}
}

// TestPublish: the client of our own, through a proxy, which comes back when the
// server does.
func TestPublish(t *testing.T) {
	g := newGateway(t)
	const resets = 1 << 40 // asked for, it has the service reset the connection
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			var head [16]byte
			if _, err := io.ReadFull(c, head[:]); err == nil && binary.BigEndian.Uint64(head[8:]) == resets {
				_ = c.(*net.TCPConn).SetLinger(0)
			} else if err == nil {
				_ = hearNoise(c, int64(binary.BigEndian.Uint64(head[:])))
				_ = sayNoise(c, int64(binary.BigEndian.Uint64(head[8:])))
			}
			c.Close()
		}
	}()
	upstream := startPaper(t, paperSetup{settings: "rules: {allow: here, from: loopback, to: loopback}"})
	g.publish("intranet="+ln.Addr().String(), "--proxy", "socks5://"+upstream.addr().String())
	g.visit()
	c, err := net.Dial("tcp", g.visitors.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(paperPatience)); err != nil {
		t.Fatal(err)
	}
	if err := exchangeNoise(c, 0, resets); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the service reset: %v", err)
	}
}
