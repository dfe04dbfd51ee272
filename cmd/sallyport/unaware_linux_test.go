//go:build linux

package main_test

// Programs that know of no proxy, or are told to use none, below `sallyport run`. The
// office has no other way out, and only the firewall knows the target's name.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unaware is a command line below `sallyport run`, with the office's proxy as a URL.
func unaware(t *testing.T, proxy string, command ...string) []string {
	t.Helper()
	program, err := paperProgram()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), "run", "--proxy", proxy, "--"}, command...)
}

// staticClient is a client of TCP that only Go is below. It connects to its argument, sends
// its input, says FIN, and prints what comes back.
const staticClient = `package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	c, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if got := c.RemoteAddr().String(); len(os.Args) > 2 && got != os.Args[2] {
		fmt.Fprintln(os.Stderr, "the peer is", got)
		os.Exit(1)
	}
	go func() {
		io.Copy(c, os.Stdin)
		c.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(os.Stdout, c)
}
`

// buildStatic builds it, for an architecture, and returns its path.
func buildStatic(t *testing.T, arch string) string {
	t.Helper()
	source := writeFile(t, "client.go", []byte(staticClient))
	path := filepath.Join(filepath.Dir(source), "client")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// TestUnawareClients sends a megabyte through each client that joins its standard input
// and output with a connection, and gets it back changed.
func TestUnawareClients(t *testing.T) {
	paperSlow(t)
	static := buildStatic(t, "")
	o := newOffice(t, officeRules)
	for _, c := range []struct {
		name, host string
		command    func(host, port string) []string
	}{
		{"a static program", officeOutside, func(host, port string) []string {
			return []string{static, host + ":" + port, host + ":" + port}
		}},
		{"a static program with a name", officeName, func(host, port string) []string { return []string{static, host + ":" + port} }},
		{"ncat", officeOutside, func(host, port string) []string { return []string{"ncat", host, port} }},
		{"ncat with a name", officeName, func(host, port string) []string { return []string{"ncat", host, port} }},
		{"nc", officeName, func(host, port string) []string { return []string{"nc.openbsd", "-N", host, port} }},
		{"socat", officeName, func(host, port string) []string {
			return []string{"socat", "-t", "30", "-", "TCP:" + host + ":" + port}
		}},
		{"a grandchild", officeName, func(host, port string) []string {
			return []string{"sh", "-c", `sh -c 'nc.openbsd -N "$0" "$1"' "$0" "$1"; exit $?`, host, port}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sent, port := paperBytes(megabyte), o.mirror(t)
			got := o.run(t, sent, nil, unaware(t, "socks5h://"+officeProxy, c.command(c.host, port)...)...)
			sameBytes(t, "there and back", got, insideOut(sent))
			o.session(t, paperSession{
				Protocol: "socks5", Target: net.JoinHostPort(c.host, port), Address: net.JoinHostPort(officeOutside, port),
				Reason: "closed", Up: megabyte, Down: megabyte,
			})
		})
	}
}

// web is a target outside that has one page. It returns its port.
func (o *office) web(t *testing.T, page string) string {
	t.Helper()
	ln := o.outside.listen(t, "[::]:0")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })}
	go func() { _ = server.Serve(ln) }() // until it is closed
	t.Cleanup(func() { server.Close() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// TestUnawareDownloads has programs of several resolvers fetch a page: glibc's, Go's,
// c-ares (aria2), Python's.
func TestUnawareDownloads(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	const page = "the page outside"
	port := o.web(t, page)
	page4, pageOf := "http://"+net.JoinHostPort(officeOutside, port)+"/page", "http://"+net.JoinHostPort(officeName, port)+"/page"
	const python = `import sys, urllib.request as u
sys.stdout.write(u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=20).read().decode())`
	for _, c := range []struct {
		name, proxy string
		command     []string
	}{
		{"curl, an address", "socks5h", []string{"curl", "-sS", "--noproxy", "*", page4}},
		{"curl, a name", "socks5h", []string{"curl", "-sS", "--noproxy", "*", pageOf}},
		{"wget", "socks5h", []string{"wget", "--no-proxy", "-q", "-O-", pageOf}},
		{"python", "socks5h", []string{"/usr/bin/python3", "-c", python, pageOf}},
		{"by SOCKS 4a", "socks4a", []string{"curl", "-sS", "--noproxy", "*", pageOf}},
		{"by SOCKS 4", "socks4", []string{"curl", "-sS", "--noproxy", "*", page4}},
		{"by HTTP", "http", []string{"curl", "-sS", "--noproxy", "*", pageOf}},
		{"what heeds a proxy", "socks5h", []string{"curl", "-sS", pageOf}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := o.run(t, nil, nil, unaware(t, c.proxy+"://"+officeProxy, c.command...)...); string(got) != page {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("aria2", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "aria2c", "-q", "--no-conf", "--all-proxy=", "--http-proxy=", "--dir", dir, pageOf)...)
		if got, err := os.ReadFile(filepath.Join(dir, "page")); string(got) != page {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestUnawareIPv6 reaches a target by a family that the office does not have.
func TestUnawareIPv6(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	o.outside.ip(t, "addr add 2001:db8:2::2/64 dev wall nodad")
	o.wall.ip(t, "addr add 2001:db8:2::1/64 dev outside nodad")
	const page = "by IPv6"
	port := o.web(t, page)
	for _, proxy := range []string{"socks5h", "http"} {
		got := o.run(t, nil, nil, unaware(t, proxy+"://"+officeProxy, "curl", "-sS", "--noproxy", "*", "http://[2001:db8:2::2]:"+port+"/")...)
		if string(got) != page {
			t.Errorf("%s: got %q", proxy, got)
		}
	}
}

// TestUnawareRefusals tells programs what they would have been told without a proxy.
func TestUnawareRefusals(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, `
log: {format: json}
rules:
  - {deny: one, to: 198.51.100.9}
  - {allow: the office, from: 10.1.0.0/24, to: any}
`)
	o.wall.ip(t, "route add unreachable 203.0.113.0/24")
	ln := o.outside.listen(t, officeOutside+":0")
	_, closed, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	const python = `import errno, socket, sys
for host in sys.argv[2:]:
    s = socket.socket(socket.AF_INET)
    s.settimeout(20 if host == sys.argv[2] else None)
    try: print(errno.errorcode[s.connect_ex((host, int(sys.argv[1])))])
    except socket.gaierror as fault: print(fault)
`
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "/usr/bin/python3", "-c", python, closed,
		officeOutside, officeName, "203.0.113.1", "198.51.100.9", "nowhere.example")...)
	if want := "ECONNREFUSED\nECONNREFUSED\nEHOSTUNREACH\nEACCES\nEHOSTUNREACH\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = o.run(t, nil, nil, unaware(t, "socks5h://"+officeWall+":1", "/usr/bin/python3", "-c", python, closed, officeOutside)...)
	if want := "ENETUNREACH\n"; string(got) != want {
		t.Errorf("without a proxy: got %q, want %q", got, want)
	}
	got = o.run(t, nil, nil, append([]string{"sh", "-c", `"$@" 2>&1; true`, "sh"}, unaware(t, "socks5h://"+officeWall+":1",
		"curl", "-s", "--noproxy", "*", "http://"+officeOutside)...)...)
	if said := string(got); !strings.HasPrefix(said, "sallyport: upstream: ") || !strings.Contains(said, officeWall+":1") {
		t.Errorf("without a proxy it says: %s", said)
	}
}

// TestUnawareQuestions asks a name server in the ways that programs have: each gets its
// answer from whom it has asked.
func TestUnawareQuestions(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	const python = `import socket, struct, threading, time
server = ("192.0.2.53", 53)
ask = b"\0\7\1\0\0\1\0\0\0\0\0\0\6target\7example\0\0\1\0\1"
def tell(how, got, source): print(how, socket.inet_ntoa(got[-4:]), *source[:2])
def udp(connected=False, family=socket.AF_INET, to=server):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if connected: s.connect(to); s.send(ask)
    else: s.sendto(ask, to)
    return s
tell("recvfrom", *udp().recvfrom(512))
tell("recvmsg", *(lambda m: (m[0], m[3]))(udp().recvmsg(512)))
s = udp(True)
tell("connected", s.recvfrom(512)[0], s.getpeername())
parts = [bytearray(12), bytearray(500)]
n, _, flags, source = udp().recvmsg_into(parts)
tell("in parts", b"".join(parts)[:n], source)
n, flags = (lambda m: (len(m[0]), m[2]))(udp().recvmsg(20))
print("cut", n, flags == socket.MSG_TRUNC)
s = udp(family=socket.AF_INET6, to=("2001:db8::53", 53))
tell("IPv6", *s.recvfrom(512))
s = udp(family=socket.AF_INET6, to=("::ffff:192.0.2.53", 53))
tell("mapped", *s.recvfrom(512))
s = udp()
s.recvfrom(512)
threading.Timer(0.2, lambda: s.sendto(ask, server)).start() # while the other waits
tell("waiting", *s.recvfrom(512))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 10000))
try: s.recvfrom(512)
except BlockingIOError: print("no more")
s = socket.create_connection(server)
s.sendall(struct.pack("!H", len(ask)) + ask)
size, = struct.unpack("!H", s.recv(2))
tell("stream", s.recv(size), s.getpeername())
`
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "/usr/bin/python3", "-c", python)...)
	const want = `recvfrom 198.18.0.1 192.0.2.53 53
recvmsg 198.18.0.1 192.0.2.53 53
connected 198.18.0.1 192.0.2.53 53
in parts 198.18.0.1 192.0.2.53 53
cut 20 True
IPv6 198.18.0.1 2001:db8::53 53
mapped 198.18.0.1 ::ffff:192.0.2.53 53
waiting 198.18.0.1 192.0.2.53 53
no more
stream 198.18.0.1 192.0.2.53 53
`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestUnawareSockets connects sockets in less usual states, of which each keeps its own.
func TestUnawareSockets(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	ln := o.outside.listen(t, officeOutside+":0")
	_, closed, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	const python = `import errno, os, resource, socket, sys
port, closed, outside, inside = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
def page(s):
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return b"".join(iter(lambda: s.recv(4096), b"")).split(b"\r\n\r\n")[1].decode()
def tell(how, s, to, peer=None):
    s.connect(to)
    print(how, page(s), s.getpeername()[:2] == (peer or to)[:2])
again = socket.socket()
print("refused", errno.errorcode[again.connect_ex((outside, closed))])
tell("again", again, (outside, port))
print("twice", errno.errorcode.get(again.connect_ex(("192.0.2.1", 1))))
bound = socket.socket()
bound.bind((inside, 0))
before = bound.getsockname()
tell("bound", bound, (outside, port))
print("as before", bound.getsockname() == before)
tied = socket.socket()
tied.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, socket.if_nameindex()[-1][1].encode())
tell("tied", tied, (outside, port))
mapped = socket.socket(socket.AF_INET6)
tell("mapped", mapped, ("::ffff:" + outside, port))
lone = socket.socket(socket.AF_INET6)
lone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
print("IPv6 only", errno.errorcode[lone.connect_ex(("::ffff:" + outside, port))])
fast = socket.socket()
fast.setsockopt(socket.IPPROTO_TCP, 30, 1) # TCP_FASTOPEN_CONNECT
tell("fast", fast, (outside, port))
hurried = socket.socket()
hurried.setblocking(False)
print("hurried", hurried.connect_ex((outside, port)), os.get_blocking(hurried.fileno()))
multi = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) # Multipath TCP
tell("multipath", multi, (outside, port))
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
except OSError as fault: print("no descriptors", errno.errorcode[fault.errno])
`
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "/usr/bin/python3", "-c", python, o.web(t, "page"), closed, officeOutside, officeInside)...)
	const want = `refused ECONNREFUSED
again page True
twice EISCONN
bound page True
as before True
tied page True
mapped page True
IPv6 only ENETUNREACH
fast page True
hurried 0 False
multipath page True
no descriptors EMFILE
`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestUnawareDatagrams sees that none leaves the machine, however it is sent.
func TestUnawareDatagrams(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	var heard net.PacketConn
	var err error
	o.wall.do(func() { heard, err = net.ListenPacket("udp4", officeWall+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	host, port, _ := net.SplitHostPort(heard.LocalAddr().String())
	const python = `import errno, socket, sys
to = (sys.argv[1], int(sys.argv[2]))
def tell(f, *a):
    try: return print(f(*a))
    except OSError as fault: print(errno.errorcode[fault.errno])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tell(s.connect, to)
tell(s.sendto, b"sendto", to)
try: s.sendmsg([b"sendmsg"], [], 0, to)
except OSError: pass
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
tell(raw.sendto, b"\x08\0\0\0\0\0\0\0", to)
try: raw.sendmsg([b"\x08\0\0\0\0\0\0\0"], [], 0, to)
except OSError: pass
tell(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 132)
fast = socket.socket()
tell(fast.sendto, b"fast", 0x20000000, to)
tell(fast.sendmsg, [b"fast"], [], 0x20000000, to)
here, other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("127.0.0.1", 0))
other.sendto(b"here", here.getsockname())
tell(here.recv, 10)
`
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "/usr/bin/python3", "-c", python, host, port)...)
	want := "ENETUNREACH\nENETUNREACH\nENETUNREACH\nEPROTONOSUPPORT\nENOTSUP\nENOTSUP\nb'here'\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// What was sent before this would have come before it.
	o.run(t, nil, nil, "/usr/bin/python3", "-c", `import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"the end", (sys.argv[1], int(sys.argv[2])))`, host, port)
	b := make([]byte, 100)
	_ = heard.SetReadDeadline(time.Now().Add(paperPatience))
	if n, _, err := heard.ReadFrom(b); err != nil || string(b[:n]) != "the end" {
		t.Errorf("heard %q, %v", b[:n], err)
	}
}

// TestUnawareWithoutPrivileges has a program give up those that `sallyport run` has: then it
// gets nothing by them.
func TestUnawareWithoutPrivileges(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	const python = `import errno, os, socket
def raw(who):
    try: print(who, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).fileno() > 0, flush=True)
    except OSError as fault: print(who, errno.errorcode[fault.errno], flush=True)
raw("root")
if os.fork() == 0:
    import ctypes
    assert ctypes.CDLL(None).unshare(0x10000000) == 0 # CLONE_NEWUSER
    raw("root of its own users")
    os._exit(0)
os.wait()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
raw("nobody")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("nobody's", os.fstat(s.fileno()).st_uid)
`
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, "/usr/bin/python3", "-c", python)...)
	if want := "root True\nroot of its own users EPERM\nnobody EPERM\nnobody's 65534\n"; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestUnawareCrowd connects fifty programs at once, of a shell script.
func TestUnawareCrowd(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	const page = "one of many\n"
	url := "http://" + net.JoinHostPort(officeName, o.web(t, page)) + "/"
	got := o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy,
		"sh", "-c", `for i in $(seq 50); do curl -sS --noproxy '*' "$0" & done; wait`, url)...)
	if want := strings.Repeat(page, 50); string(got) != want {
		t.Errorf("got %d bytes, want %d: %s", len(got), len(want), got)
	}
}

// TestUnawareParting has a program end as soon as it has written: all of it arrives, and be it
// that the target does not listen for a while.
func TestUnawareParting(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	for name, c := range map[string]struct {
		size  int
		pause time.Duration
	}{
		"at once": {megabyte, 0},
		"later":   {megabyte, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := o.outside.listen(t, officeOutside+":0")
			arrived := make(chan []byte, 1)
			go func() {
				defer close(arrived)
				one, err := ln.Accept()
				if err != nil {
					return
				}
				defer one.Close()
				<-time.After(c.pause)
				if b, err := io.ReadAll(one); err == nil {
					arrived <- b
				}
			}()
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			sent := paperBytes(c.size)
			o.run(t, sent, nil, unaware(t, "socks5h://"+officeProxy, "bash", "-c", `cat >"/dev/tcp/$0/$1"`, officeOutside, port)...)
			sameBytes(t, "a parting word", <-arrived, sent)
		})
	}
}

// TestUnawareOrphans ends `sallyport run` while the command goes on: then it has no
// network, rather than one without the proxy.
func TestUnawareOrphans(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	heard := o.wall.listen(t, officeWall+":0")
	_, port, _ := net.SplitHostPort(heard.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 2*paperPatience)
	defer cancel()
	line := unaware(t, "socks5h://"+officeProxy, "sh", "-c", `echo ready; read go; curl -sS --noproxy '*' "$0" 2>&1; echo "code $?"`, "http://"+net.JoinHostPort(officeWall, port)+"/")
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its own, and not what it starts, gets the signal below
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout = say
	o.inside.do(func() { err = cmd.Start() })
	say.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }() // whatever is left
	_ = output.SetReadDeadline(time.Now().Add(2 * paperPatience))
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(output, ready); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill() // it may have ended by itself, which shows below
	_, _ = io.WriteString(in, "go\n")
	said, err := io.ReadAll(output)
	if err != nil || !bytes.Contains(said, []byte("code 7")) {
		t.Errorf("%s, %v", said, err)
	}
	if err := cmd.Wait(); err == nil || errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("it was not killed: %v", err)
	}
	_ = heard.SetDeadline(time.Now())
	if c, err := heard.Accept(); err == nil {
		c.Close()
		t.Error("the command went past the proxy")
	}
}

// TestUnawareNested runs what cannot watch its own command, as it is watched: it says so,
// and the command goes the way of both.
func TestUnawareNested(t *testing.T) {
	paperSlow(t)
	o := newOffice(t, officeRules)
	const page = "from far away"
	url := "http://" + net.JoinHostPort(officeName, o.web(t, page)) + "/"
	inner := unaware(t, "socks5h://"+officeProxy, "curl", "-sS", "--noproxy", "*", url)
	inner = append([]string{"sh", "-c", `"$@" 2>&1`, "sh"}, inner...)
	got := string(o.run(t, nil, nil, unaware(t, "socks5h://"+officeProxy, inner...)...))
	if !strings.HasPrefix(got, "sallyport: only what heeds http_proxy") || !strings.HasSuffix(got, page) {
		t.Errorf("got %q", got)
	}
}
