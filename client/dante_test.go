//go:build unix

package client_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/socks"
)

// The other end of these tests is Dante, which others wrote: what we believe of
// the protocol is not only what we believe of it on both sides.

// startDante runs Debian's dante-server on loopback and returns its address.
func startDante(t *testing.T) string {
	t.Helper()
	const binary = "/usr/sbin/danted"
	if testing.Short() {
		t.Skip("needs " + binary)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "danted.conf")
	text := fmt.Sprintf(`logoutput: stderr
internal: %s port = %d
external: %[1]s
clientmethod: none
socksmethod: none
user.privileged: %[3]s
user.unprivileged: %[3]s
client pass { from: 127.0.0.0/8 to: 127.0.0.0/8 }
socks block { from: 0.0.0.0/0 to: 127.6.6.6/32 }
socks pass {
  from: 127.0.0.0/8 to: 127.0.0.0/8
  command: connect bind bindreply udpassociate udpreply
}
`, addr.IP, addr.Port, me.Username)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dante := exec.Command(binary, "-f", config, "-p", filepath.Join(dir, "pid"))
	dante.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	log, err := dante.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dante.Start(); err != nil {
		t.Fatalf("%v (Debian's package is dante-server)", err)
	}
	logged := make(chan struct{})
	t.Cleanup(func() { stopDante(t, dante, logged) })
	awaitDante(t, bufio.NewScanner(log), logged)
	return addr.String()
}

// awaitDante returns when Dante says that it runs, and has the rest of its log
// read until it ends.
func awaitDante(t *testing.T, log *bufio.Scanner, logged chan<- struct{}) {
	t.Helper()
	var seen []string
	for log.Scan() {
		seen = append(seen, log.Text())
		if strings.HasSuffix(log.Text(), " running") {
			go func() {
				defer close(logged)
				for log.Scan() {
				}
			}()
			return
		}
	}
	close(logged)
	t.Fatalf("danted did not start:\n%s", strings.Join(seen, "\n"))
}

func stopDante(t *testing.T, dante *exec.Cmd, logged <-chan struct{}) {
	t.Helper()
	if err := syscall.Kill(-dante.Process.Pid, syscall.SIGTERM); err != nil {
		t.Errorf("ending danted: %v", err)
	}
	select {
	case <-logged:
	case <-time.After(20 * time.Second):
		t.Error("danted did not end when told to")
		syscall.Kill(-dante.Process.Pid, syscall.SIGKILL)
		<-logged
	}
	dante.Wait() // its exit code says only that it was told to end
}

func TestDante(t *testing.T) {
	proxy := startDante(t)
	for _, scheme := range []string{"socks4", "socks5", "socks5h"} {
		d, err := client.New(scheme + "://alice@" + proxy)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(scheme, func(t *testing.T) {
			t.Run("connect", func(t *testing.T) { checkConnects(t, d) })
			t.Run("refused", func(t *testing.T) { danteRefuses(t, d) })
			t.Run("bind", func(t *testing.T) { checkBinds(t, d) })
		})
	}
	t.Run("udp", func(t *testing.T) { danteRelaysPackets(t, proxy) })
	t.Run("login", func(t *testing.T) {
		d, err := client.New("socks5://" + proxy)
		if err != nil {
			t.Fatal(err)
		}
		checkConnects(t, d) // the URL has no user, and Dante wants none
	})
	t.Run("chain", func(t *testing.T) {
		// Not through itself: Dante refuses to go round in a circle.
		d, err := client.New("socks4://" + proxy + ", socks5h://" + startDante(t))
		if err != nil {
			t.Fatal(err)
		}
		checkConnects(t, d)
		checkBinds(t, d)
	})
}

func danteRefuses(t *testing.T, d *client.Dialer) {
	for name, target := range map[string]string{
		"nobody listens": freeAddr(t).String(),
		"rule":           "127.6.6.6:80",
	} {
		_, err := d.DialContext(t.Context(), "tcp", target)
		refusal, ok := errors.AsType[*client.ReplyError](err)
		if !ok || !errors.Is(err, client.ErrRejected) {
			t.Errorf("%s: %v, want a refusal", name, err)
			continue
		}
		want := map[string]client.Code{"nobody listens": socks.Refused5, "rule": socks.NotAllowed5}[name]
		if _, is4 := refusal.Code.(socks.Code4); is4 {
			want = socks.Rejected4
		}
		if refusal.Code != want {
			t.Errorf("%s: %v, want code %v", name, err, want)
		}
	}
}

// danteRelaysPackets sends to two targets, by address and by name, and wants
// the echo of each.
func danteRelaysPackets(t *testing.T, proxy string) {
	for _, scheme := range []string{"socks5", "socks5h"} {
		d, err := client.New(scheme + "://" + proxy)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := d.ListenPacket(t.Context(), "udp", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 2 {
			checkPing(t, conn, startEcho(t))
		}
	}
}
