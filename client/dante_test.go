//go:build unix

package client_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
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
  command: connect bind bindreply
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

func freeAddr(t *testing.T) *net.TCPAddr {
	t.Helper()
	ln := listenLocal()
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr)
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
	d, err := client.New("socks4://alice@" + proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("connect", func(t *testing.T) { danteConnect(t, d) })
	t.Run("refused", func(t *testing.T) { danteRefuses(t, d) })
	t.Run("bind", func(t *testing.T) { danteBinds(t, d) })
}

func danteConnect(t *testing.T, d *client.Dialer) {
	server := startServer(reverse)
	defer server.Close()
	conn, err := d.DialContext(t.Context(), "tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checkReverses(t, conn)
}

func danteRefuses(t *testing.T, d *client.Dialer) {
	for name, target := range map[string]string{
		"nobody listens": freeAddr(t).String(),
		"rule":           "127.6.6.6:80",
	} {
		_, err := d.DialContext(t.Context(), "tcp", target)
		refusal, ok := errors.AsType[*client.ReplyError](err)
		if !ok || refusal.Code != socks.Rejected4 || !errors.Is(err, client.ErrRejected) {
			t.Errorf("%s: %v, want code 91", name, err)
		}
	}
}

// danteBinds follows the paper: primary connection, BIND, the address told over
// the primary connection, the application server's connection.
func danteBinds(t *testing.T, d *client.Dialer) {
	ftp := startServer(sendFileActively)
	defer ftp.Close()
	control, err := d.DialContext(t.Context(), "tcp", ftp.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	ln, err := d.Listen(t.Context(), "tcp", control.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := ln.Addr().(*net.TCPAddr)
	if !a.IP.Equal(net.IPv4(127, 0, 0, 1)) || a.Port == 0 {
		t.Errorf("Addr %v cannot be reached", a)
	}
	ip := a.IP.To4()
	if _, err := fmt.Fprintf(control, "PORT %d,%d,%d,%d,%d,%d\r\n", ip[0], ip[1], ip[2], ip[3], a.Port>>8, a.Port&0xff); err != nil {
		t.Fatal(err)
	}
	data, err := acceptWithin(t, ln, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if peer, ok := data.RemoteAddr().(*net.TCPAddr); !ok || !peer.IP.Equal(net.IPv4(127, 0, 0, 1)) || peer.Port == 0 {
		t.Errorf("RemoteAddr %v is not the application server", data.RemoteAddr())
	}
	if line, err := bufio.NewReader(data).ReadString('\n'); line != "the file\n" {
		t.Errorf("got %q, %v", line, err)
	}
	checkClosed(t, ln)
}
