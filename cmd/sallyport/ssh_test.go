//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// TestSSHThroughConnect signs in to a machine outside, with `sallyport connect`
// as the ProxyCommand, and pipes a megabyte through a program there.
func TestSSHThroughConnect(t *testing.T) {
	paperSlow(t)
	tests := []struct{ scheme, user, host, protocol string }{
		{"socks4", "carol", officeOutside, "socks4"},
		{"socks4a", "carol", officeName, "socks4a"},
		{"socks5", officeLogin, officeOutside, "socks5"},
		{"socks5h", officeLogin, officeName, "socks5"},
		{"http", officeLogin, officeName, "http"},
	}
	for _, test := range tests {
		t.Run(test.scheme, func(t *testing.T) {
			t.Parallel()
			name, _, login := strings.Cut(test.user, ":")
			o := newOfficeFor(t, login)
			keys := o.serveSSH(t)
			program, err := paperProgram()
			if err != nil {
				t.Fatal(err)
			}
			me, err := user.Current()
			if err != nil {
				t.Fatal(err)
			}
			proxyCommand := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()) + " connect --proxy " + test.scheme + "://" + test.user + "@" + officeProxy + " %h %p"
			sent := paperBytes(megabyte)
			got := o.run(t, sent, nil, "ssh", "-F", "none", "-p", "2222", "-i", keys.mine,
				"-o", "ProxyCommand="+proxyCommand, "-o", "UserKnownHostsFile="+keys.known, "-o", "StrictHostKeyChecking=yes",
				"-o", "HostKeyAlias=target", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
				me.Username+"@"+test.host, "cat")
			sameBytes(t, "there and back", got, sent)

			s := o.session(t, paperSession{Command: "connect", Protocol: test.protocol, User: name, Target: test.host + ":2222"})
			if s.Up < megabyte || s.Down < megabyte || s.Reason != "closed" {
				t.Errorf("the log says %+v", s)
			}
		})
	}
}

// sshKeys are the files that an ssh client needs.
type sshKeys struct{ mine, known string }

// serveSSH runs sshd outside, at port 2222, with keys of its own.
func (o *office) serveSSH(t *testing.T) sshKeys {
	t.Helper()
	dir := t.TempDir()
	host, mine := filepath.Join(dir, "host"), filepath.Join(dir, "mine")
	for _, key := range []string{host, mine} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(host + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	known := writeFile(t, "known_hosts", []byte("target "+string(public)))
	// The folder that sshd locks its helper into. Debian makes it when it starts the service.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	conf := writeFile(t, "sshd_config", []byte(strings.Join([]string{
		"ListenAddress " + officeOutside + ":2222",
		"HostKey " + host,
		"AuthorizedKeysFile " + mine + ".pub",
		"PermitRootLogin prohibit-password",
		"StrictModes no",
		"UsePAM no",
		"PidFile none",
	}, "\n")+"\n"))
	background(t, o.outside, officeOutside+":2222", "/usr/sbin/sshd", "-D", "-e", "-f", conf)
	return sshKeys{mine, known}
}
