//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sallyport/sallyport/bench/load"
)

// publishers are those that bring visitors of a port to a service by a connection that its machine has made: a server,
// and beside it its client, whose costs are counted together. OpenSSH's client is the same with either server.
func publishers() []contender {
	fixed := []load.Protocol{load.Fixed}
	return []contender{
		{name: "sallyport", protocols: fixed, ours: true, command: sallyportWithSSH},
		{name: "publish", protocols: fixed, ours: true, command: sallyportWithPublish},
		{name: "sshd", protocols: fixed, command: sshdWithSSH},
		{name: "sshd aes", protocols: fixed, command: sshdWithAES},
	}
}

// sshScript runs the server ($1: its command), waits until it listens at port $2, and becomes the client.
const sshScript = `mkdir -p /run/sshd
sh -c "$1" >/dev/null 2>&1 &
for i in 1 2 3 4 5 6 7 8 9 10; do (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && break; sleep 0.2; done
shift 2
exec "$@"`

// sshKeyOf makes the key that signs in, once.
func sshKeyOf(ctx context.Context, y *yard) (string, error) {
	key := filepath.Join(y.dir, "virtual_key")
	if _, err := os.Stat(key); err == nil {
		return key, nil
	}
	return key, tool(ctx, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
}

func sshClient(key, user string, server uint16, offer string, options ...string) []string {
	args := []string{
		"ssh", "-F", "none", "-N", "-R", offer, "-i", key, "-p", strconv.Itoa(int(server)),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
	}
	return append(append(args, options...), user+"@127.0.0.1")
}

// virtualPort writes what a server of ours needs for a virtual port with visitors at the address.
func virtualPort(ctx context.Context, y *yard, name string, at, target netip.AddrPort) (command []string, key string, server uint16, err error) {
	if command, err = sallyport(ctx, y, at, target); err != nil {
		return nil, "", 0, err
	}
	if server, err = freePort(ctx); err != nil {
		return nil, "", 0, err
	}
	if key, err = sshKeyOf(ctx, y); err != nil {
		return nil, "", 0, err
	}
	users, err := y.file(name+".users", "bob:$2y$04$QwK.BLnEkcjlnwN3jl7NouSvBEFx.2cB4c1G8lSsB3Ecmdj3R3cYq\n")
	if err != nil {
		return nil, "", 0, err
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return nil, "", 0, err
	}
	if _, err = y.file(name+".users.keys", "bob:"+string(public)); err != nil {
		return nil, "", 0, err
	}
	conf, err := y.file(name+".yaml", fmt.Sprintf(`
listeners: {name: lan, listen: "127.0.0.1:%d", protocols: ssh}
users: {file: "%s"}
ssh: {host_key: "%s.host_key"}
virtual_ports: {name: service, listen: "%s", users: bob}
rules: {allow: visitors, from: loopback, to: service}
ledger: off
`, server, users, filepath.Join(y.dir, name), at))
	return []string{command[0], "serve", "--config", conf, "--admin", "off"}, key, server, err
}

func sallyportWithSSH(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	command, key, server, err := virtualPort(ctx, y, "virtual", at, target)
	if err != nil {
		return nil, err
	}
	args := []string{"bash", "-c", sshScript, "virtual", fmt.Sprintf("exec %s serve --config %s --admin off", command[0], command[3]), strconv.Itoa(int(server))}
	return append(args, sshClient(key, "bob", server, "service:80:"+target.String())...), nil
}

func sallyportWithPublish(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	command, key, server, err := virtualPort(ctx, y, "publish", at, target)
	if err != nil {
		return nil, err
	}
	const script = `sh -c "$1" >/dev/null 2>&1 &
for i in 1 2 3 4 5 6 7 8 9 10; do (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && break; sleep 0.2; done
exec "$3" publish "service=$4" --server "ssh://bob@127.0.0.1:$2" --identity "$5" --fingerprint "$("$3" hostkey --config "$6" | head -n 1 | cut -d ' ' -f 1)"`
	serve := fmt.Sprintf("exec %s serve --config %s --admin off", command[0], command[3])
	return []string{"bash", "-c", script, "publish", serve, strconv.Itoa(int(server)), command[0], target.String(), key, command[3]}, nil
}

func sshdWithSSH(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	return sshdWith(ctx, y, "sshd", at, target)
}

// sshdWithAES has the client choose the cipher that it chooses with a server of ours.
func sshdWithAES(ctx context.Context, y *yard, at, target netip.AddrPort) ([]string, error) {
	return sshdWith(ctx, y, "aes", at, target, "-c", "aes128-gcm@openssh.com")
}

func sshdWith(ctx context.Context, y *yard, name string, at, target netip.AddrPort, options ...string) ([]string, error) {
	key, err := sshKeyOf(ctx, y)
	if err != nil {
		return nil, err
	}
	server, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	conf, err := y.file(name+".conf", fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %[2]s\nAuthorizedKeysFile %[2]s.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n", server, key))
	if err != nil {
		return nil, err
	}
	args := []string{"bash", "-c", sshScript, name, "exec /usr/sbin/sshd -D -f " + conf, strconv.Itoa(int(server))}
	return append(args, sshClient(key, "root", server, at.String()+":"+target.String(), options...)...), nil
}
