//go:build linux

package main_test

import (
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// danteSettings let loopback go anywhere on loopback.
const danteSettings = `logoutput: stderr
internal: 127.0.0.1 port = %[1]s
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: %[2]s
user.unprivileged: %[2]s
client pass { from: 127.0.0.0/8 to: 127.0.0.0/8 }
socks pass {
  from: 127.0.0.0/8 to: 127.0.0.0/8
  command: connect bind bindreply udpassociate udpreply
}
`

// startDanted runs Debian's dante-server until the test ends, and returns where.
func startDanted(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	at := paperListenAndClose(t)
	_, port, _ := strings.Cut(at, ":")
	conf := writeFile(t, "danted.conf", fmt.Appendf(nil, danteSettings, port, me.Username))
	dante := exec.Command("/usr/sbin/danted", "-f", conf, "-p", filepath.Join(t.TempDir(), "pid"))
	dante.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	var said paperLines
	dante.Stderr = &said
	if err := dante.Start(); err != nil {
		t.Fatalf("%v (Debian's package is dante-server)", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = dante.Wait() // it only says that it was told to end
	}()
	t.Cleanup(func() {
		if err := syscall.Kill(-dante.Process.Pid, syscall.SIGTERM); err != nil {
			t.Errorf("ending danted: %v", err)
		}
		select {
		case <-ended:
		case <-time.After(paperPatience):
			t.Error("danted did not end when told to")
			_ = syscall.Kill(-dante.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	said.until(t, ended, "that danted runs", func(line string) bool { return strings.HasSuffix(line, " running") })
	return at
}

// TestViaDante: a proxy that others wrote, as upstream, for every command and with
// one of ours behind it.
func TestViaDante(t *testing.T) {
	paperSlow(t)
	t.Parallel()
	dante := startDanted(t)
	last := startPaper(t, paperSetup{settings: viaEnd})
	for name, proxy := range map[string]string{
		"socks4": "socks4://" + dante, "socks5": "socks5://" + dante, "socks5h": "socks5h://" + dante,
		"a chain": "socks5h://" + dante + "," + last.url("socks5"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startVia(t, proxy)
			c, far := s.join5(t, "", paperListen(t, nil, "127.0.0.1:0"))
			paperExchange(t, c, far, 100_000)
			viaForwards(t, s)
			c = s.ask5(t, paper5Ask(paperCONNECT, paperDeaf(t, nil)))
			if code, _ := c.replied5(); code == paper5Succeeded {
				t.Error("a target that refuses was granted")
			}
			x := paperListen(t, nil, "127.0.0.1:0")
			s.join5(t, "", x)
			waiting := s.greet5(t, "")
			waiting.sends(paper5Ask(paperBIND, x.addr))
			peer := s.net.dial(t, "127.0.0.1", waiting.granted5())
			if got := waiting.granted5().String(); got != peer.local {
				t.Fatalf("the second reply says %s, want the peer %s", got, peer.local)
			}
			paperExchange(t, waiting, peer, 1000)
			if name == "socks5" || name == "socks5h" {
				viaPings(t, s)
			}
		})
	}
}
