//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/bench/load"
)

// contender is a proxy that can be started.
type contender struct {
	name      string
	protocols []load.Protocol
	ours      bool // it can be had everywhere
	anybody   bool // any user can run it
	datagrams bool // it has UDP ASSOCIATE, or is no proxy

	// command returns what runs it in the foreground, listening at one address. If it is fixed, it leads to the other.
	// nil: there is no proxy, and the target is reached directly.
	command command
}

// command returns a program and its arguments.
type command func(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error)

// socksAndHTTP is what those speak that speak everything.
var socksAndHTTP = []load.Protocol{load.Socks5, load.Socks4, load.HTTP}

// contenders are the proxies that are measured. The first is what the others are compared with.
var contenders = []contender{
	{name: "sallyport", protocols: socksAndHTTP, ours: true, anybody: true, datagrams: true, command: sallyport},
	{name: "plain", protocols: []load.Protocol{load.Socks5}, ours: true, anybody: true, command: plain},
	{name: "forward", protocols: []load.Protocol{load.Fixed}, ours: true, anybody: true, command: forward},
	{name: "microsocks", protocols: []load.Protocol{load.Socks5}, anybody: true, command: microsocks},
	{name: "dante", protocols: []load.Protocol{load.Socks5, load.Socks4}, datagrams: true, command: dante},
	{name: "sing-box", protocols: socksAndHTTP, anybody: true, datagrams: true, command: singBox},
	{name: "haproxy", protocols: []load.Protocol{load.Fixed}, anybody: true, command: haproxy},
	{name: "squid", protocols: []load.Protocol{load.HTTP}, command: squid},
	{name: "tinyproxy", protocols: []load.Protocol{load.HTTP}, anybody: true, command: tinyproxy},
	{name: "ssh", protocols: []load.Protocol{load.Socks5, load.Socks4}, command: ssh},
	{name: "direct", protocols: []load.Protocol{load.Fixed}, ours: true, anybody: true, datagrams: true},
}

// contenders are those that o asks for.
func (o options) contenders() []contender {
	switch {
	case o.virtual:
		return publishers()
	case o.maps:
		return mappers()
	case o.records:
		return recording("", sallyport)
	case o.limits:
		return limited()
	case o.lists > 0:
		return deciders(o.lists)
	}
	return contenders
}

// ourBuild is another build of this proxy, doing what this one does: where that is with and without something, several contenders.
func (o options) ourBuild(name, binary string) []contender {
	command := func(_ context.Context, _ *yard, at, _ netip.AddrPort) ([]string, error) {
		binary, err := filepath.Abs(binary)
		return []string{binary, "serve", "--listen", at.String()}, err
	}
	switch {
	case o.records:
		return recording(name+" ", command)
	case o.maps:
		return []contender{mapping(name, command)}
	}
	return []contender{{name: name, protocols: socksAndHTTP, ours: true, anybody: true, datagrams: true, command: command}}
}

// builds are the other builds of this proxy that o asks for.
func (o options) builds() (list []contender, err error) {
	for build := range strings.SplitSeq(o.also, ",") {
		if name, binary, ok := strings.Cut(build, "="); ok {
			list = append(list, o.ourBuild(name, binary)...)
		}
	}
	if len(list) > 0 && (o.virtual || o.limits || o.lists > 0) {
		return nil, errors.New("-also is not for these rows: a build without their settings would do something else")
	}
	return list, nil
}

func port(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// tool runs a program that makes something, and has its output in the error.
func tool(ctx context.Context, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", args, err, out)
	}
	return nil
}

func sallyport(ctx context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	binary := filepath.Join(y.dir, "sallyport")
	err := tool(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", binary, "./cmd/sallyport")
	return []string{binary, "serve", "--listen", at.String()}, err
}

func plain(ctx context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	binary := filepath.Join(y.dir, "plain")
	err := tool(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", binary, "./bench/plain")
	return []string{binary, at.String()}, err
}

func forward(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	binary := filepath.Join(y.dir, "forward")
	err := tool(ctx, nil, "gcc", "-O2", "-o", binary, "bench/forward/forward.c")
	return []string{binary, port(at), port(target)}, err
}

func microsocks(_ context.Context, _ *yard, at, _ netip.AddrPort) ([]string, error) {
	return []string{"microsocks", "-i", at.Addr().String(), "-p", port(at)}, nil
}

func dante(_ context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	conf, err := y.file("danted.conf", fmt.Sprintf(`
errorlog: /dev/null
internal: %s port = %s
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 }
`, at.Addr(), port(at)))
	return []string{"danted", "-f", conf, "-p", filepath.Join(y.dir, "danted.pid")}, err
}

// singBox comes through the module proxy; where it does not, it is left out.
func singBox(ctx context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	const module = "github.com/sagernet/sing-box/cmd/sing-box@v1.12.12"
	binary, err := exec.LookPath("sing-box")
	if err != nil {
		if err := tool(ctx, []string{"GOBIN=" + y.dir, "CGO_ENABLED=0"}, "go", "install", module); err != nil {
			return nil, err
		}
		binary = filepath.Join(y.dir, "sing-box")
	}
	conf, err := y.file("sing-box.json", fmt.Sprintf(`{
"log": {"disabled": true},
"inbounds": [{"type": "mixed", "listen": "%s", "listen_port": %s}],
"outbounds": [{"type": "direct"}]}`, at.Addr(), port(at)))
	if err == nil {
		err = os.Chmod(conf, 0o644)
	}
	return []string{binary, "run", "-c", conf}, err
}

func haproxy(_ context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	conf, err := y.file("haproxy.cfg", fmt.Sprintf(`
global
	maxconn 9500
	nbthread 2
defaults
	mode tcp
	timeout connect 10s
	timeout client 1h
	timeout server 1h
listen all
	bind %s
	server target %s
`, at, target))
	if err == nil {
		err = os.Chmod(conf, 0o644)
	}
	return []string{"haproxy", "-db", "-q", "-f", conf}, err
}

func squid(_ context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	conf, err := y.file("squid.conf", fmt.Sprintf(`
http_port %s
http_access allow all
cache deny all
access_log none
cache_log /dev/null
cache_store_log none
pid_filename none
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
`, at))
	if err == nil {
		err = os.Chmod(conf, 0o644)
	}
	return []string{"squid", "-N", "-f", conf}, err
}

func tinyproxy(_ context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	conf, err := y.file("tinyproxy.conf", fmt.Sprintf(`
Port %s
Listen %s
Timeout 3600
MaxClients 9500
LogLevel Critical
LogFile "/dev/null"
`, port(at), at.Addr()))
	if err == nil {
		err = os.Chmod(conf, 0o644)
	}
	return []string{"tinyproxy", "-d", "-c", conf}, err
}

// ssh is a client and a server: the server is a child of the client's process, so that the costs of both are counted.
func ssh(ctx context.Context, y *yard, at, _ netip.AddrPort) ([]string, error) {
	key := filepath.Join(y.dir, "key")
	if err := tool(ctx, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		return nil, err
	}
	server, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	conf, err := y.file("sshd.conf", fmt.Sprintf(`
ListenAddress 127.0.0.1:%d
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
`, server, key, key))
	const script = `mkdir -p /run/sshd
/usr/sbin/sshd -D -f "$1" 2>/dev/null &
for i in 1 2 3 4 5 6 7 8 9 10; do (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && break; sleep 0.2; done
exec ssh -F none -N -D "$3" -i "$4" -p "$2" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1`
	return []string{"bash", "-c", script, "ssh", conf, strconv.Itoa(int(server)), at.String(), key}, err
}
