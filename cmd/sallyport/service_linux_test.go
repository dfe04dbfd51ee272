package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// manager is a service manager's side of the notify protocol.
type manager struct {
	testing.TB
	socket *net.UnixConn
	path   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short: it goes into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &manager{t, socket, path}
}

// hears waits for a message that begins so, and returns its lines. Signs of life come
// in between.
func (m *manager) hears(begins string) []string {
	m.Helper()
	_ = m.socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	for b := make([]byte, 4096); ; {
		n, err := m.socket.Read(b)
		if err != nil {
			m.Fatalf("no message %s: %v", begins, err)
		}
		lines := strings.Split(string(b[:n]), "\n")
		switch {
		case strings.HasPrefix(lines[0], begins):
			return lines
		case lines[0] != "WATCHDOG=1":
			m.Fatalf("the message is %q, want %s", lines, begins)
		}
	}
}

// activate starts the program as systemd does, with a socket of this name: as soon as
// the first client comes.
func (u *upgradable) activate(t *testing.T, name string, env ...string) (address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	args := []string{"--listen", address, "--fdname", name, "--setenv", "PATH=" + u.dir + ":" + os.Getenv("PATH"), "--setenv", "STATE_DIRECTORY=" + os.DevNull}
	for _, e := range env {
		args = append(args, "--setenv", e)
	}
	log, err := os.Create(u.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("systemd-socket-activate", append(args, filepath.Join(u.dir, "sallyport"), "--config", filepath.Join(u.dir, "s.yaml"))...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u.first = cmd.Process.Pid
	t.Cleanup(u.kill)
	proxytest.Eventually(t, "the socket is open", func() bool { return strings.Contains(u.said(), "Listening on ") })
	return address
}

// TestSystemd: a socket that systemd has opened, and what a service of its kind tells:
// that it is ready, alive, reloading, replaced, and stopping.
func TestSystemd(t *testing.T) {
	u, m := newUpgradable(t), newManager(t)
	u.address = u.activate(t, "lan", "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=300000")
	settings := strings.Replace(upgradableSettings, "127.0.0.1:0", u.address, 1)
	u.writes("s.yaml", settings)
	port := proxytest.Echo(t, "127.0.0.1").Port()
	s, err := u.session(port) // waits in the queue until the program has started
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ready := []string{"READY=1", "STATUS=Serving 1 listeners"}
	if got := m.hears("READY=1"); !slices.Equal(got, ready) {
		t.Errorf("%q, want %q", got, ready)
	}
	m.hears("WATCHDOG=1")
	if err := syscall.Kill(u.first, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := m.hears("RELOADING=1"); len(got) != 2 || !strings.HasPrefix(got[1], "MONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	m.hears("READY=1")
	u.upgrades(true)
	if got := m.hears("MAINPID="); got[0] != "MAINPID="+strconv.Itoa(u.serving()) {
		t.Errorf("%q, want %d", got, u.serving())
	}
	m.hears("READY=1")
	m.hears("WATCHDOG=1")
	if err := s.exchange([]byte("hello")); err != nil {
		t.Error(err)
	}
	s.Close()
	proxytest.Eventually(t, "the first process ends", func() bool { return u.ended(u.first) })
	second, err := u.session(port)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if err := syscall.Kill(u.serving(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := m.hears("STOPPING=1"); len(got) != 2 || got[1] != "EXTEND_TIMEOUT_USEC=45000000" {
		t.Errorf("%q", got)
	}
	proxytest.Eventually(t, "it ends", func() bool { return u.ended(u.serving()) })
}

// TestSystemdSockets that are not those of the settings: one for a listener that is
// elsewhere is a fault, one for nobody is closed.
func TestSystemdSockets(t *testing.T) {
	t.Run("elsewhere", func(t *testing.T) {
		u := newUpgradable(t)
		u.writes("s.yaml", strings.Replace(upgradableSettings, "127.0.0.1:0", "127.0.0.2:1", 1))
		u.address = u.activate(t, "lan")
		c, err := net.Dial("tcp", u.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(u.first, &status, 0, nil); err != nil || status.ExitStatus() != exitFailed {
			t.Errorf("it ends with %d, %v", status.ExitStatus(), err)
		}
		if want := `the listener "lan" cannot open its address: the service manager has opened ` + u.address + " for it, and the settings say 127.0.0.2:1"; !strings.Contains(u.said(), want) {
			t.Errorf("it does not say %s:\n%s", want, u.said())
		}
	})
	t.Run("for nobody", func(t *testing.T) {
		u := newUpgradable(t)
		u.writes("s.yaml", upgradableSettings)
		u.address = u.activate(t, "other")
		c, err := net.Dial("tcp", u.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		proxytest.Eventually(t, "it warns", func() bool { return strings.Contains(u.said(), "sockets that no listener has") })
		if !strings.Contains(u.said(), "other ("+u.address+")") {
			t.Errorf("it does not say which: %s", u.said())
		}
		if err := syscall.Kill(u.first, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		proxytest.Eventually(t, "it ends", func() bool { return u.ended(u.first) })
	})
}

// alone runs a script in namespaces of its own: what it does to /etc, /run, /var and
// /usr/local/bin, and what it starts, is gone when it ends.
func alone(t *testing.T, script string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs root")
	}
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	prelude := `set -eu
ip link set lo up
mount -t tmpfs none ` + dir + `
mkdir ` + dir + `/upper ` + dir + `/work
mount -t overlay none -o lowerdir=/etc,upperdir=` + dir + `/upper,workdir=` + dir + `/work /etc
for folder in /run /var/log /var/lib /usr/local/bin; do mount -t tmpfs none $folder; done
ln -s ` + program + ` /usr/local/bin/sallyport
PATH=/usr/local/bin:$PATH
unset STATE_DIRECTORY
fails() { if "$@"; then echo "it should fail: $*"; exit 1; fi; }
`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", prelude+script)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return string(said)
}

// TestServiceSystemd: what is asked of systemd, which does not run here.
func TestServiceSystemd(t *testing.T) {
	said := alone(t, `
mkdir -p /run/systemd/system
cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
echo "systemctl $*" >>/run/calls
case $1 in is-active) echo active;; esac
END
chmod +x /usr/local/bin/systemctl
fails sallyport service install
printf 'alice\nprivate\n\n\n' | sallyport init --output /etc/sallyport/sallyport.yaml
sallyport service install
fails sallyport service install
getent passwd sallyport
stat -c '%n %a %G' /etc/sallyport /etc/sallyport/*
cat /etc/systemd/system/sallyport.service
for action in start status restart stop uninstall; do sallyport service $action; done
test ! -e /etc/systemd/system/sallyport.service
cat /run/calls
`)
	for _, want := range []string{
		"installed (linux-systemd) with the settings /etc/sallyport/sallyport.yaml",
		"sallyport init --output /etc/sallyport/sallyport.yaml` writes settings",
		"Init already exists",
		":/var/lib/sallyport:/usr/sbin/nologin",
		"/etc/sallyport 2750 sallyport\n", "/etc/sallyport/sallyport.yaml 640 sallyport\n", "/etc/sallyport/users 640 sallyport\n",
		"ExecStart=/usr/local/bin/sallyport serve --config /etc/sallyport/sallyport.yaml\n",
		"the service runs\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	calls := regexp.MustCompile(`(?m)^systemctl (.*)$`).FindAllString(said, -1)
	want := []string{"enable", "daemon-reload", "start", "is-active", "restart", "stop", "is-active", "stop", "disable", "daemon-reload"}
	var got []string
	for _, call := range calls {
		got = append(got, strings.Fields(call)[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("systemd was asked for %q, want %q", got, want)
	}
	if t.Failed() {
		t.Log(said)
	}
}

// TestServiceOpenRC: what is asked of OpenRC, which is not here, and its script, which runs
// the server: rc-service does with it what openrc-run and its supervisor would.
func TestServiceOpenRC(t *testing.T) {
	said := alone(t, `
printf '#!/bin/sh\n' >/usr/local/bin/openrc-init
printf '#!/bin/sh\necho "rc-update $*"\n' >/usr/local/bin/rc-update
cat >/usr/local/bin/rc-service <<'END'
#!/bin/sh
[ -e /etc/init.d/$1 ] || exit 2
. /etc/init.d/$1
case $2 in
start) $command $command_args >>/var/log/$name.log 2>>/var/log/$name.err & echo $! >/run/pid ;;
status) kill -0 "$(cat /run/pid)" || exit 3 ;;
stop) kill "$(cat /run/pid)"; while kill -0 "$(cat /run/pid)"; do sleep 0.1; done ;;
esac 2>/dev/null
END
chmod +x /usr/local/bin/*
printf '\n\n\n\n' | sallyport init --output /etc/sallyport/sallyport.yaml
fails sallyport service status
sallyport service install
head -1 /etc/init.d/sallyport
sh -n /etc/init.d/sallyport
sallyport service start
for try in 1 2 3 4 5 6 7 8 9 10; do sallyport reload && break; sleep 0.5; done
sallyport reload
sallyport service status
sallyport service stop
fails sallyport service status
cat /var/log/sallyport.*
sallyport service uninstall
test ! -e /etc/init.d/sallyport
`)
	for _, want := range []string{
		"installed (linux-openrc) with the settings", "#!/sbin/openrc-run\n", "the service runs\n", "the service does not run\n",
		"listening on 127.0.0.1:1080",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}

// TestServiceSysV starts and stops the server by a script in /etc/init.d.
func TestServiceSysV(t *testing.T) {
	said := alone(t, `
printf '\n\n\n\n' | sallyport init --output /etc/sallyport/sallyport.yaml
fails sallyport service uninstall
sallyport service install
sh -n /etc/init.d/sallyport
ls /etc/rc3.d
fails sallyport service status
sallyport service start
for try in 1 2 3 4 5 6 7 8 9 10; do sallyport reload && break; sleep 0.5; done
sallyport reload
sallyport service status
sallyport service stop
fails sallyport service status
fails sallyport reload
cat /var/log/sallyport.log
sallyport service uninstall
test ! -e /etc/init.d/sallyport
`)
	for _, want := range []string{
		"installed (unix-systemv) with the settings", "sallyport\n", "the service runs\n", "the service does not run\n",
		"listening on 127.0.0.1:1080", "the service is not installed",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}
